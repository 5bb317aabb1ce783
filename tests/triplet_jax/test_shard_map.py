"""Losses over the devices of a mesh: `jax.shard_map`, and arrays that are spread over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.support import cases
from triplet_jax import contrastive, errors, losses, mining, regularisers, telemetry

DEVICES = 4
X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 4, 16).astype(np.int32)
PROXIES = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
TELEMETRY = {"miner": "semi_hard", "margin": 0.2, "most_positives": 6}


def triplet(x, y, number, proxies, **settings):
    del proxies
    return losses.triplet_loss(x, y, margin=number, average="valid", **settings)[0]


def with_proxies(x, y, number, proxies, **settings):
    nce = functools.partial(contrastive.info_nce, temperature=number)
    references = losses.References(proxies, jnp.arange(4), shared=True)
    return contrastive.contrastive_loss(x, y, loss=nce, references=references, **settings)[0]


def contrasted(x, y, number, proxies, **settings):
    del proxies
    pairs = functools.partial(contrastive.pairs, margin=1.0 + number)
    return contrastive.contrastive_loss(x, y, loss=pairs, metric="euclidean", **settings)[0]


def spread(x, y, number, proxies, **settings):
    del proxies
    return number * regularisers.spread(x, y, **settings)


LOSSES = {
    "semi_hard": functools.partial(triplet, miner="semi_hard", penalty="margin_based"),
    "batch_all": functools.partial(triplet, miner="batch_all", tile_size=3),
    "rank": functools.partial(triplet, miner=functools.partial(mining.rank, n=2)),
    "random": functools.partial(triplet, miner="boltzmann", key=jax.random.key(0)),
    "swap": functools.partial(triplet, penalty="anchor_swap", derivatives="all"),
    "all": functools.partial(triplet, miner="batch_all", derivatives="all", tile_size=3),
    "proxies": with_proxies,
    "pairs": contrasted,
    "spread": spread,
}


def mesh_of(kind, devices=DEVICES):
    return jax.make_mesh((devices,), ("shards",), (kind,), devices=jax.devices()[:devices])


@functools.cache
def of_one_device(name):
    return jax.jit(jax.value_and_grad(LOSSES[name], (0, 2, 3)))(X, LABELS, 0.3, PROXIES)


def assert_close(found, expected, rtol=1e-4):
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=1e-5)
    jax.tree.map(close, found, expected)


QUICK = ["batch_all", "proxies", "semi_hard"]


@pytest.mark.parametrize(
    ("name", "check_vma"),
    cases.mostly_slow(
        [(name, check) for name in LOSSES for check in (True, False)],
        [(name, True) for name in QUICK],
    ),
)
def test_value_and_gradient_are_those_of_one_device(name, check_vma):
    sharded = jax.shard_map(
        functools.partial(LOSSES[name], axis_name="shards"),
        mesh=mesh_of(AxisType.Auto),
        in_specs=(P("shards"), P("shards"), P(), P()),
        out_specs=P(),
        check_vma=check_vma,
    )
    found = jax.jit(jax.value_and_grad(sharded, (0, 2, 3)))(X, LABELS, jnp.float32(0.3), PROXIES)
    assert_close(found, of_one_device(name))


def test_a_gradient_taken_inside_is_that_of_one_device():
    def inside(x, y, number, proxies):
        loss = functools.partial(LOSSES["batch_all"], axis_name="shards")
        return jax.value_and_grad(loss, (0, 2))(x, y, number, proxies)

    specs = (P("shards"), P("shards"), P(), P())
    mesh = mesh_of(AxisType.Auto)
    sharded = jax.shard_map(inside, mesh=mesh, in_specs=specs, out_specs=(P(), (specs[0], P())))
    value, (of_x, of_number) = jax.jit(sharded)(X, LABELS, jnp.float32(0.3), PROXIES)
    expected, (slope, of_margin, _) = of_one_device("batch_all")
    assert_close((value, of_x, of_number), (expected, slope, of_margin))


def penalised(x, y, axis_name=None):
    """A loss and a penalty on its gradient, over all rows."""

    def loss(x):
        settings = {"penalty": "squared_hinge", "derivatives": "all", "axis_name": axis_name}
        return triplet(x, y, 0.3, None, **settings)

    value, gradient = jax.value_and_grad(loss)(x)
    squares = jnp.sum(gradient**2)
    return value + (squares if axis_name is None else jax.lax.psum(squares, axis_name))


@pytest.mark.slow
def test_a_gradient_penalty_is_that_of_one_device():
    expected = jax.jit(jax.value_and_grad(penalised))(X, LABELS)
    sharded = jax.shard_map(
        functools.partial(penalised, axis_name="shards"),
        mesh=mesh_of(AxisType.Auto),
        in_specs=P("shards"),
        out_specs=P(),
    )
    assert_close(jax.jit(jax.value_and_grad(sharded))(X, LABELS), expected, rtol=1e-3)


def test_a_mesh_of_one_device_takes_squares(monkeypatch):
    from triplet_jax.engine import half_matrix

    monkeypatch.setattr(half_matrix, "_LEAST", 1)
    monkeypatch.setattr(half_matrix, "_SIZE", 5)
    loss = functools.partial(triplet, number=0.3, proxies=None, miner="batch_all")
    sharded = jax.shard_map(
        functools.partial(loss, axis_name="shards"),
        mesh=mesh_of(AxisType.Auto, 1),
        in_specs=P("shards"),
        out_specs=P(),
    )
    y = np.arange(16, dtype=np.int32) // 3
    expected = jax.jit(jax.value_and_grad(functools.partial(loss, tile_size=16)))(X, y)
    assert_close(jax.jit(jax.value_and_grad(sharded))(X, y), expected)


@pytest.mark.parametrize(
    "kind", [pytest.param(AxisType.Auto, marks=pytest.mark.slow), AxisType.Explicit]
)
def test_arrays_that_are_spread_over_devices_are_one_batch(kind):
    mesh = mesh_of(kind)
    rows = functools.partial(jax.device_put, device=NamedSharding(mesh, P("shards")))
    everywhere = jax.device_put(PROXIES, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        for name in ("batch_all", "proxies", "spread"):
            run = jax.jit(jax.value_and_grad(LOSSES[name], (0, 2, 3)))
            found = run(rows(X), rows(LABELS), 0.3, everywhere)
            assert_close(jax.device_get(found), of_one_device(name))
        seen = jax.jit(functools.partial(telemetry.of_batch, **TELEMETRY))(rows(X), rows(LABELS))
    expected = jax.jit(functools.partial(telemetry.of_batch, **TELEMETRY))(X, LABELS)
    assert_close(jax.device_get(seen), expected)


def test_explicit_axes_need_no_mesh_in_force():
    rows = NamedSharding(mesh_of(AxisType.Explicit), P("shards"))
    x, y = jax.device_put((X, LABELS), rows)
    found = jax.jit(jax.value_and_grad(LOSSES["batch_all"], (0, 2)))(x, y, 0.3, None)
    expected, (slope, of_margin, _) = of_one_device("batch_all")
    assert_close(jax.device_get(found), (expected, (slope, of_margin)))


def test_an_axis_that_is_not_bound_is_refused():
    x, y = jnp.asarray(X), jnp.asarray(LABELS)
    for run in (
        losses.triplet_loss,
        contrastive.contrastive_loss,
        regularisers.norm,
        regularisers.spread,
        functools.partial(telemetry.of_batch, **TELEMETRY),
        lambda x, y, axis_name: losses.of_triplets(x, x, x, axis_name=axis_name),
    ):
        with pytest.raises(errors.InputError, match="axis_name='shard' is no axis here"):
            run(x, y, axis_name="shard")
