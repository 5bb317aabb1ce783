"""What crosses devices, and its gradient."""

import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.devices import collectives

DEVICES, ROWS, DIM = 8, 3, 5


def over_all(function, out_axes=0):
    return collectives.over_devices(function, in_axes=(0,), out_axes=out_axes)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, bool])
def test_every_device_gets_all_rows_as_they_are(dtype):
    x = np.random.default_rng(0).normal(size=(DEVICES, ROWS, DIM)).astype(dtype)
    gathered = over_all(lambda rows: collectives.gather(rows, "devices"), out_axes=None)(x)
    assert gathered.dtype == dtype
    np.testing.assert_array_equal(gathered, x.reshape(DEVICES * ROWS, DIM))


def test_what_is_not_finite_stays_in_its_place():
    x = np.ones((DEVICES, ROWS), np.float32)
    x[2, 1], x[5, 0] = np.nan, np.inf
    gathered = over_all(lambda rows: collectives.gather(rows, "devices"), out_axes=None)(x)
    np.testing.assert_array_equal(gathered, x.reshape(-1))


def test_the_gradient_is_that_of_all_devices_and_needs_no_reduce_scatter():
    """Which processes that meet on CPUs give up where one of them is late."""
    random = np.random.default_rng(1)
    x = random.normal(size=(DEVICES, ROWS, DIM)).astype(np.float32)
    weight = jnp.asarray(random.normal(size=(DEVICES, DEVICES * ROWS, DIM)), jnp.float32)

    def gradient(rows):
        def loss(rows):
            everything = collectives.gather(rows, "devices")
            return jnp.sum(jnp.sin(everything) * weight[jax.lax.axis_index("devices")])

        return jax.grad(loss)(rows)

    lifted = over_all(gradient)
    expected = np.cos(x) * np.asarray(weight).sum(0).reshape(x.shape)
    np.testing.assert_allclose(lifted(x), expected, rtol=1e-5, atol=1e-5)
    assert "reduce-scatter" not in lifted.lower(x).compile().as_text()


def test_a_tree_of_arrays_is_added_up_in_one():
    """On CPUs each array would be waited for on its own, in every step."""
    random = np.random.default_rng(2)
    tree = {
        "kernel": random.normal(size=(DEVICES, ROWS, DIM)).astype(np.float32),
        "bias": random.normal(size=(DEVICES, DIM)).astype(np.float32),
        "scale": random.normal(size=DEVICES).astype(np.float32),
    }
    for reduce, expected in ((collectives.total, np.sum), (collectives.mean, np.mean)):
        lifted = over_all(lambda x, reduce=reduce: reduce(x, "devices"), out_axes=None)
        reduced = lifted(tree)
        for name, x in tree.items():
            np.testing.assert_allclose(reduced[name], expected(x, axis=0), rtol=1e-5, atol=1e-6)
        compiled = lifted.lower(tree).compile().as_text()
        assert re.findall(r"= (\S+) all-reduce\(", compiled) == ["f32[21]{0}"]


def test_numbers_of_several_kinds_stay_what_they_are():
    tree = {"loss": np.ones(DEVICES, np.float32), "count": np.full(DEVICES, 2**24 + 1, np.int32)}
    total = over_all(lambda x: collectives.total(x, "devices"), out_axes=None)(tree)
    assert total["count"].dtype == np.int32
    assert int(total["count"]) == DEVICES * (2**24 + 1)


def test_the_largest_of_all_devices():
    x = np.random.default_rng(3).normal(size=(DEVICES, ROWS)).astype(np.float32)
    found = over_all(lambda rows: collectives.largest(rows, "devices"), out_axes=None)(x)
    np.testing.assert_array_equal(found, x.max(axis=0))
    assert collectives.largest(x, None) is x


def test_the_devices_of_a_process_are_neighbours_on_the_axis(monkeypatch):
    places = [(1, 3), (0, 2), (1, 1), (0, 0)]
    devices = [mock.Mock(spec=jax.Device, process_index=p, id=i) for p, i in places]
    assert collectives._in_order() is None
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda: devices)
    found = [(device.process_index, device.id) for device in collectives._in_order()]
    assert found == [(0, 0), (0, 2), (1, 1), (1, 3)]
