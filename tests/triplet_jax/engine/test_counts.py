"""Sums from counts are those of the penalties, for every miner whose triplets can be counted."""

import functools
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import distances, losses, mining
from triplet_jax.engine import counts, rules
from triplet_jax.penalties import hinge, squared_hinge

COUNTED = [
    name
    for name, mine in sorted(mining.MINERS.items())
    if mining.judges_triplets(mine) or mining.choice(mine)
]
N = 70


def rule(mine, penalize=hinge):
    return rules.TripletRule(distances.METRICS["euclidean"], mine, penalize, None)


def rows(seed, n=N, dim=3):
    return np.float32(np.random.default_rng(seed).normal(size=(n, dim)))


@functools.cache
def program(miner, counted, penalty="hinge", n=N):
    """Loss and stats, and the gradient in rows and margin, compiled."""

    def run(x, margin, y, mask):
        return losses.triplet_loss(x, y, mask=mask, margin=margin, miner=miner, penalty=penalty)

    arrays = (rows(0, n), jnp.float32(0.0), np.zeros(n, int), np.ones(n, bool))
    suits = counts.suits if counted else lambda *_: False
    with mock.patch.object(counts, "suits", suits):
        run = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))
        return run.lower(*arrays).compile()


def assert_same(found, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, expected
    )


def test_miners_that_judge_triplets_or_candidates_alone_are_counted():
    judge_triplets = {"band", "batch_all", "easy", "hard", "semi_hard_band"}
    assert set(COUNTED) == judge_triplets | {"multi_similarity", "rank_range"}
    for name in COUNTED:
        assert counts.suits(rule(mining.MINERS[name]), 3, N)


@pytest.mark.parametrize("miner", cases.mostly_slow(COUNTED, ["hard", "rank_range"]))
@hypothesis.given(y=st.data(), seed=st.integers(0, 99), hidden=st.sampled_from([0.0, 0.3, 1.0]))
def test_counts_give_the_sums_of_penalties(miner, y, seed, hidden):
    labels = y.draw(st.lists(st.integers(0, 5), min_size=N, max_size=N).map(np.array))
    mask = np.random.default_rng(seed).uniform(size=N) >= hidden
    arrays = (rows(seed), np.float32(0.2), labels, mask)
    assert_same(program(miner, True)(*arrays), program(miner, False)(*arrays))


def test_a_partial_of_a_rule_that_chooses_is_counted_with_a_traced_knob():
    x, y = rows(2), np.arange(N) % 7

    def run(last):
        mine = functools.partial(mining.rank_range, last=last)
        return losses.triplet_loss(x, y, miner=mine)

    found = jax.jit(run)
    with mock.patch.object(counts, "suits", lambda *_: False):
        expected = jax.jit(lambda last: run(last)).lower(1).compile()
    for last in (1, 4, 100):
        assert_same(found(last), expected(last))
    assert found(4)[1]["num_valid"] == N * (N / 7 - 1) * 4


@pytest.mark.parametrize("n", cases.mostly_slow([17, 64, 4100], [17]))
def test_pieces_of_any_size_hold_all_negatives(n):
    arrays = (rows(1, n), np.float32(0.2), np.arange(n) // 3, np.ones(n, bool))
    found, expected = (program("hard", counted, n=n)(*arrays) for counted in (True, False))
    assert expected[0][1]["num_valid"] > 0
    assert_same(found, expected)


def sums(to_positives, to_negatives, margin, mine=mining.batch_all):
    """The sums of one anchor, all of whose distances count."""
    near, far = (jnp.asarray(x, jnp.float32)[None] for x in (to_positives, to_negatives))
    everywhere = [jnp.ones(x.shape, bool) for x in (near, far)]
    count = jax.jit(functools.partial(counts.of_pairs, mine))
    return count(near, everywhere[0], far, everywhere[1], margin)


def test_large_distances_lose_no_digits():
    random = np.random.default_rng(0)
    to_positives, to_negatives = (1e4 + random.integers(0, 64, n) / 64 for n in (40, 3000))
    expected = np.maximum(to_positives[:, None] - to_negatives + 0.125, 0)
    found = sums(to_positives, to_negatives, 0.125)
    assert float(found.penalty) == pytest.approx(expected.sum(), rel=1e-6)
    assert found.active == (expected > 0).sum()
    assert found.valid == 40 * 3000


def test_a_distance_that_is_no_number_is_seen_and_an_infinite_one_is_far():
    assert np.isnan(sums([1.0, 2.0], [1.5, np.nan], 0.2).penalty)
    assert np.isnan(sums([1.0, np.nan], [1.5, 3.0], 0.2).penalty)
    found = sums([1.0, 2.0], [1.5, np.inf], 0.25)
    assert (found.penalty, found.active) == (0.75, 1)


def test_a_gap_of_the_margin_is_not_active():
    assert sums([1.0], [1.25, 1.125], 0.25).active == 1


def of_floats(to_positives, is_positive, to_negatives, is_negative):
    """All triplets, the nearer negatives with more weight."""
    pair = is_positive[:, None] & is_negative
    weight = jnp.where(pair, jnp.exp(-to_negatives), 0.0)
    return mining.Triplets(to_positives[:, None], to_negatives[None, :], weight)


def of_means(to_positives, is_positive, to_negatives, is_negative):
    """The mean of the two distances in place of the negative's."""
    pair = is_positive[:, None] & is_negative
    mean = (to_positives[:, None] + to_negatives) / 2
    return mining.Triplets(to_positives[:, None], mean, pair)


def test_what_cannot_be_counted_is_not():
    assert counts.suits(rule(functools.partial(mining.band, low=0.1)), 3, N)
    others = rule(mining.batch_all)._replace(mining_metric=distances.METRICS["cosine"])
    for unfit in (
        rule(mining.angular),  # takes the distances between positives and negatives, too
        rule(mining.batch_hard),
        rule(mining.batch_all, squared_hinge),
        rule(mining.by_triplet(of_floats)),
        rule(mining.by_triplet(of_means)),
        others,
    ):
        assert not counts.suits(unfit, 3, N)
    assert not counts.suits(rule(mining.batch_all), 2**12, 2**13)  # two counts share a float


@pytest.mark.parametrize("mine", cases.mostly_slow([of_floats, of_means], [of_means]))
def test_a_miner_of_ones_own_that_cannot_be_counted_has_its_general_sums(mine):
    x, y = rows(3), np.arange(N) % 6
    marked = mining.by_triplet(mine)
    found, _ = jax.jit(functools.partial(losses.triplet_loss, miner=marked))(x, y)
    with mock.patch.object(mining, "judges_triplets", lambda _: False):
        expected, _ = jax.jit(functools.partial(losses.triplet_loss, miner=mine))(x, y)
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
