import functools
import operator
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import distances, losses, mining
from triplet_jax.devices import collectives
from triplet_jax.engine import half_matrix, rules
from triplet_jax.penalties import anchor_swap, hinge, soft_margin

SEPARABLE = [name for name, mine in sorted(mining.MINERS.items()) if mining.is_separable(mine)]
MARGIN = 0.3


def rows(seed, n, dim=3):
    return np.float32(np.random.default_rng(seed).normal(size=(n, dim)))


def classes(seed, n, most=4):
    """Labels of so many examples a class at most, in any order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, most + 1, n)
    return rng.permutation(np.repeat(np.arange(n), sizes)[:n])


@functools.cache
def program(n, small, **settings):
    """Loss, stats and gradient, compiled; in squares of a few rows or, if not `small`, in tiles."""

    def run(x, y, mask):
        return losses.triplet_loss(x, y, mask=mask, margin=MARGIN, **settings)

    examples = (rows(0, n), np.zeros(n, int), np.ones(n, bool))
    with mock.patch.multiple(half_matrix, _SIZE=5 if small else 256, _LEAST=1 if small else 2**30):
        return jax.jit(jax.value_and_grad(run, has_aux=True)).lower(*examples).compile()


def assert_same(found, expected):
    (loss, stats), gradient = found
    (expected_loss, expected_stats), expected_gradient = expected
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5, abs=1e-6)
    for name, number in expected_stats.items():
        assert float(stats[name]) == pytest.approx(float(number), rel=1e-5, abs=1e-5), name
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("miner", "n"),
    cases.mostly_slow(
        [(miner, n) for miner in SEPARABLE for n in (15, 17)],
        [("batch_all", 15)],
    ),
)
@hypothesis.given(y=st.data(), seed=st.integers(0, 3))
def test_squares_agree_with_brute_force(miner, n, y, seed):
    y = np.array(y.draw(st.lists(st.integers(0, n // 2), min_size=n, max_size=n)))
    x = rows(seed, n)
    (loss, stats), gradient = program(n, True, miner=miner)(x, y, np.ones(n, bool))
    chosen = oracles.mine(x, y, miner)
    means, *counts = oracles.loss_of(x, chosen, margin=MARGIN)
    assert [stats["num_valid"], stats["num_active"]] == counts
    assert float(loss) == pytest.approx(means["active"], rel=1e-5, abs=1e-6)
    slope = oracles.slope(lambda x: oracles.loss_of(x, chosen, margin=MARGIN)[0], x)["active"]
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=2e-4)


SETTINGS = [
    {"metric": "cosine"},
    {"metric": "squared_euclidean", "average": "valid"},
    {"penalty": "anchor_swap"},  # which takes tiles
    {"penalty": "margin_based"},
    {"miner": "easy", "penalty": "soft_margin"},
]


@pytest.mark.parametrize(
    "settings",
    cases.mostly_slow(SETTINGS, SETTINGS[1:2]),
    ids=["-".join(settings.values()) for settings in SETTINGS],
)
@hypothesis.given(seed=st.integers(0, 99), hidden=st.sampled_from([0.0, 0.3, 1.0]))
def test_squares_and_tiles_are_one(settings, seed, hidden):
    settings = {"miner": "batch_all"} | settings
    mask = np.random.default_rng(seed).random(17) >= hidden
    batch = (rows(seed, 17), classes(seed, 17), mask)
    assert_same(*(program(17, small, **settings)(*batch) for small in (True, False)))


@mining.separable
def nearby(to_positives, is_positive, to_negatives, is_negative):
    """A miner that somebody wrote: every positive with every negative that is very near."""
    weight = is_positive[:, None] & (is_negative & (to_negatives < 0.1))
    return mining.Triplets(to_positives[:, None], to_negatives[None, :], weight)


@pytest.mark.parametrize("shift", [pytest.param(0.0, marks=pytest.mark.slow), 3.0])
@pytest.mark.parametrize("apart", [0.0, pytest.param(1e-3, marks=pytest.mark.slow)])
def test_near_duplicates_lose_no_digits(apart, shift):
    x = rows(0, 16) + np.float32(shift)
    x[8:] = x[:8] + np.float32(apart) * rows(1, 8)
    between = np.linalg.norm(np.float64(x[8:]) - x[:8], axis=1).mean()
    of_positives, of_negatives = np.tile(np.arange(8), 2), np.arange(16) // 2
    for miner, y, name in (
        ("batch_all", of_positives, "mean_d_ap"),
        (nearby, of_negatives, "mean_d_an"),
    ):
        (_, stats), gradient = program(16, True, miner=miner)(x, y, np.ones(16, bool))
        assert stats["num_valid"] > 0
        assert float(stats[name]) == pytest.approx(between, rel=1e-4, abs=0)
        assert np.isfinite(gradient).all()


@pytest.mark.slow
@mock.patch.multiple(half_matrix, _SIZE=25, _LEAST=200)
def test_squares_are_for_large_batches_with_few_positives():
    x = rows(0, 210, 4)
    few, many = (x, classes(0, 210, 4)), (x, classes(0, 210, 5))

    def compiled(**settings):
        run = functools.partial(losses.triplet_loss, miner="batch_all", **settings)
        return jax.jit(lambda *batch: run(*batch)[0])

    tiles, either = compiled(tile_size=30), compiled()
    for batch in (few, many):
        assert float(either(*batch)) == pytest.approx(float(tiles(*batch)), rel=1e-5)
    sweep = half_matrix.sweep
    nothing = mock.patch.object(
        half_matrix, "sweep", lambda *a: jax.tree.map(jnp.zeros_like, sweep(*a))
    )
    with nothing:
        either = compiled()
        assert either(*few) == 0
        assert float(either(*many)) == pytest.approx(float(tiles(*many)), rel=1e-5)
        assert compiled(tile_size=30)(*few) == tiles(*few)


def test_an_axis_of_one_device_takes_squares():
    x, y = rows(0, 17), classes(0, 17)
    settings = {"miner": "batch_all", "margin": MARGIN, "axis_name": collectives.DEVICES}
    lifted = functools.partial(losses.triplet_loss, **settings)
    with (
        mock.patch.multiple(half_matrix, _SIZE=5, _LEAST=1),
        mock.patch.object(half_matrix, "sweep", side_effect=half_matrix.sweep) as sweep,
    ):
        run = jax.pmap(lifted, axis_name=collectives.DEVICES, devices=jax.devices()[:1])
        [loss], _ = run(x[None], y[None])
    assert sweep.called
    (expected, _), _ = program(17, False, miner="batch_all")(x, y, np.ones(17, bool))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_runs_that_are_batched_take_squares_or_tiles_together():
    labels = jnp.array([classes(0, 17), np.arange(17) // 5])  # the second has too many positives
    x = jnp.stack([rows(0, 17), rows(1, 17)])
    run = jax.value_and_grad(
        functools.partial(losses.triplet_loss, miner="batch_all", margin=MARGIN), has_aux=True
    )
    with mock.patch.multiple(half_matrix, _SIZE=5, _LEAST=1):
        together = jax.jit(jax.vmap(run))(x, labels)
    alone = program(17, False, miner="batch_all")
    for i in range(2):
        found = jax.tree.map(operator.itemgetter(i), together)
        assert_same(found, alone(x[i], labels[i], np.ones(17, bool)))


@pytest.mark.parametrize("miner", SEPARABLE)
def test_a_separable_miner_needs_but_two_distances(miner):
    rng = np.random.default_rng(0)
    near, far = jnp.float32(rng.random(4)), jnp.float32(rng.random(9))
    is_positive, is_negative = jnp.array(rng.random(4) < 0.7), jnp.array(rng.random(9) < 0.7)
    d_ap, d_an, weight = np.broadcast_arrays(
        *mining.MINERS[miner](near, is_positive, far, is_negative)
    )
    for p, n in np.ndindex(4, 9):
        one, other = slice(p, p + 1), slice(n, n + 1)
        alone = mining.MINERS[miner](near[one], is_positive[one], far[other], is_negative[other])
        assert [x.item() for x in alone] == [d_ap[p, n], d_an[p, n], weight[p, n]]


def test_a_partial_of_a_separable_miner_is_separable():
    assert mining.is_separable(functools.partial(mining.easy, margin=0.3))
    assert not mining.is_separable(functools.partial(mining.band, low=0.3))


def test_squares_need_a_distance_that_is_the_same_both_ways():
    def suits(metric, penalty=hinge):
        rule = rules.TripletRule(distances.make(metric), mining.MINERS["batch_all"], penalty, None)
        return half_matrix.suits(rule, jnp.zeros((2**15, 3)))

    assert suits("euclidean") and not suits("signal_to_noise")
    assert not suits("euclidean", anchor_swap)  # which takes distances between candidates


@pytest.mark.parametrize("axis", [0, 1])
def test_a_penalty_that_needs_each_triplet_is_summed_from_both_sides_of_a_square(axis):
    batch_all = mining.MINERS["batch_all"]
    rule = rules.TripletRule(distances.make("euclidean"), batch_all, soft_margin, None)
    rng = np.random.default_rng(axis)
    square, is_negative = np.float32(rng.random((4, 6))), rng.random((4, 6)) < 0.7
    side = square.shape[axis]
    to_positives, is_positive = np.float32(rng.random((side, 2))), rng.random((side, 2)) < 0.7

    @jax.jit
    def add_up(square, *arrays):
        return half_matrix._add_up_side(rule, square, {"margin": jnp.float32(0)}, axis, *arrays)

    found = add_up(square, to_positives, is_positive, is_negative)
    to_negatives, is_negative = (np.moveaxis(x, axis, 0) for x in (square, is_negative))
    chosen = is_positive[:, :, None] & is_negative[:, None, :]
    d_ap, d_an = (
        np.broadcast_to(x, chosen.shape)[chosen]
        for x in (to_positives[:, :, None], to_negatives[:, None, :])
    )
    assert found.valid == chosen.sum()
    assert float(found.penalty) == pytest.approx(np.log1p(np.exp(d_ap - d_an)).sum(), rel=1e-5)
    assert [float(found.d_ap), float(found.d_an)] == pytest.approx([d_ap.sum(), d_an.sum()])
