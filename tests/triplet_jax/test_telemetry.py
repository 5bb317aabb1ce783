import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import errors, mining, telemetry
from triplet_jax.devices import collectives


def batch(n=24, classes=6, dim=5):
    random = np.random.default_rng(3)
    return random.normal(size=(n, dim)).astype(np.float32), np.arange(n) % classes


@functools.cache
def program(**settings):
    settings = {"margin": 0.5, "most_positives": 3} | settings
    return jax.jit(functools.partial(telemetry.of_batch, **settings))


def measure(x, labels, miner="semi_hard", key=None, **settings):
    return program(miner=miner, **settings)(jnp.asarray(x), jnp.asarray(labels), key=key)


def nearest_rank(values):
    ordered = np.sort(values)
    return ordered[(np.array(telemetry.PERCENTILES) * (len(ordered) - 1) + 50) // 100]


@pytest.mark.parametrize(
    "miner", cases.mostly_slow(["batch_all", "batch_hard", "semi_hard"], ["semi_hard"])
)
def test_agrees_with_brute_force(miner):
    x, labels = batch()
    found = measure(x, labels, miner)
    d = oracles.pairwise(x, x, "euclidean")
    other = ~np.eye(len(x), dtype=bool)
    same = labels[:, None] == labels[None, :]
    np.testing.assert_allclose(found["norms"], nearest_rank(np.linalg.norm(x, axis=1)), rtol=1e-4)
    for name, where in (
        ("distances", other),
        ("to_positives", same & other),
        ("to_negatives", ~same),
    ):
        np.testing.assert_allclose(found[name], nearest_rank(d[where]), rtol=1e-4)
    mined = oracles.mine(x, labels, miner, "euclidean")
    d_ap, d_an = (np.array([d[t[0], t[i]] for t in mined]) for i in (1, 2))
    np.testing.assert_allclose(found["d_ap"], nearest_rank(d_ap), rtol=1e-4)
    np.testing.assert_allclose(found["d_an"], nearest_rank(d_an), rtol=1e-4)
    gaps = (d_an - d_ap) / d[~same].mean()
    expected, _ = np.histogram(np.clip(gaps, -1, 1), telemetry.HARDNESS_EDGES)
    np.testing.assert_allclose(found["hardness"], expected / len(mined), atol=1e-6)
    ranks = [(d[a][~same[a]] < d[a, n]).sum() / ((~same[a]).sum() - 1) for a, _, n in mined]
    expected, _ = np.histogram(ranks, telemetry.RANK_EDGES)
    # Twentieths fall on the edges, where rounding decides the side.
    np.testing.assert_allclose(np.cumsum(found["negative_rank"])[-1], 1.0, rtol=1e-6)
    moved = np.abs(np.cumsum(found["negative_rank"]) - np.cumsum(expected) / len(mined)).max()
    assert moved < 0.06


def test_percentiles_are_exact_for_any_floats():
    rng = np.random.default_rng(0)
    values = np.float32(rng.normal(size=(40, 25)) * 10.0 ** rng.integers(-40, 38, size=(40, 25)))
    values[:3] = [[-np.inf], [0.0], [np.inf]]
    where = rng.random(values.shape) < 0.9
    found = telemetry._percentiles(jnp.asarray(values), jnp.asarray(where))
    np.testing.assert_array_equal(found, nearest_rank(values[where]))
    only = telemetry._percentiles(jnp.float32([3.0, -2.5, 1.0]), jnp.array([False, True, False]))
    np.testing.assert_array_equal(only, [-2.5] * len(telemetry.PERCENTILES))


def test_the_census_counts_all_triplets():
    x, labels = batch()
    found = measure(x, labels, "batch_hard")
    d = oracles.pairwise(x, x, "euclidean")
    gaps = np.array(
        [d[a, n] - d[a, p] for a, p, n in oracles.mine(x, labels, "batch_all", "euclidean")]
    )
    expected = [(gaps > 0.5).mean(), ((gaps > 0) & (gaps <= 0.5)).mean(), (gaps <= 0).mean()]
    np.testing.assert_allclose(found["census"], expected, rtol=1e-4)


def test_effective_rank_counts_the_axes_in_use():
    x = np.zeros((32, 6), np.float32)
    x[np.arange(32), np.arange(32) % 4] = 1.0  # four corners: three axes around their mean
    found = measure(x, np.arange(32) % 8)
    assert float(found["effective_rank"]) == pytest.approx(3.0, abs=1e-3)
    np.testing.assert_allclose(found["spectrum"], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0], atol=1e-5)


def test_anchors_on_demand():
    x, labels = batch()
    found = measure(x, labels, "batch_all", per_anchor=True)
    np.testing.assert_array_equal(found["anchor_label"], np.sort(labels))
    np.testing.assert_array_equal(found["anchor_triplets"], np.full(24, 3 * 20))
    d = oracles.pairwise(x, x, "euclidean")
    order = np.argsort(labels, kind="stable")
    same = labels[:, None] == labels[None, :]
    expected = [d[a][same[a] & (np.arange(24) != a)].mean() for a in order]
    np.testing.assert_allclose(found["anchor_d_ap"], expected, rtol=1e-4)


def test_random_miners_are_described_as_they_drew(key):
    x, labels = batch()
    found = measure(x, labels, "random", key=key, per_anchor=True)
    again = measure(x, labels, "random", key=key, per_anchor=True)
    np.testing.assert_array_equal(found["anchor_d_an"], again["anchor_d_an"])
    assert (np.asarray(found["anchor_triplets"]) == 3).all()


@pytest.mark.slow
def test_devices_change_nothing():
    x, labels = batch()
    whole = measure(x, labels)
    lifted = jax.pmap(
        functools.partial(measure, axis_name=collectives.DEVICES), axis_name=collectives.DEVICES
    )(x.reshape(8, 3, 5), labels.reshape(8, 3))
    for name, value in whole.items():
        for device in range(8):
            np.testing.assert_allclose(lifted[name][device], value, rtol=1e-5, atol=1e-6)


def test_a_batch_without_triplets_gives_zeros():
    found = measure(np.ones((8, 3)), np.zeros(8, int), "batch_all")
    assert all(np.isfinite(value).all() for value in found.values())
    assert found["hardness"].sum() == found["census"].sum() == 0


def test_hidden_rows_are_kept_out_of_the_numbers():
    x, labels = batch(6, 3, 2)
    x[[1, 4]] = np.nan
    shown = jnp.array([True, False, True, True, False, True])
    arranged = jax.jit(telemetry._sorted_global_batch, static_argnums=3)
    rows, sorted_labels, still_shown, order = arranged(x, labels, shown, None)
    assert still_shown.tolist() == [True] * 4 + [False] * 2
    assert np.isfinite(rows).all()
    assert sorted_labels[:4].tolist() == [0, 0, 2, 2]
    np.testing.assert_array_equal(rows[:4], x[order[:4]])


def test_at_least_one_positive_is_kept():
    settings = {"miner": "batch_all", "margin": 0.5, "most_positives": 0}
    with pytest.raises(errors.InputError, match="most_positives=0 must be at least 1"):
        jax.eval_shape(lambda: telemetry.of_batch(*batch(), **settings))


def test_only_some_steps_are_measured():
    x, labels = map(jnp.asarray, batch())
    every = telemetry.every(5, functools.partial(measure, miner=mining.batch_hard))
    on, off = jax.jit(every)(jnp.int32(10), x, labels), jax.jit(every)(jnp.int32(11), x, labels)
    assert on["distances"][-1] > 0
    assert jax.tree.all(jax.tree.map(lambda a: (a == 0).all(), off))
    assert jax.tree.map(jnp.shape, on) == jax.tree.map(jnp.shape, off)
