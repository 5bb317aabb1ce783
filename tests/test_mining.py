import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import mining

TO_POSITIVES = jnp.array([1.0, 9.0, 3.0])  # the second is padding
IS_POSITIVE = jnp.array([True, False, True])
TO_NEGATIVES = jnp.array([2.0, 0.5, 4.0, 3.5, 0.1])  # the last is padding
IS_NEGATIVE = jnp.array([True, True, True, True, False])
ROW = (TO_POSITIVES, IS_POSITIVE, TO_NEGATIVES, IS_NEGATIVE)


def as_list(triplets):
    """The triplets that count, as pairs of distances."""
    d_ap, d_an, weight = np.broadcast_arrays(*map(np.asarray, triplets))
    counts = weight > 0
    return list(zip(d_ap[counts].tolist(), d_an[counts].tolist(), strict=True))


def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative():
    assert as_list(mining.batch_hard(*ROW)) == [(3.0, 0.5)]


def test_semi_hard_takes_the_nearest_negative_beyond_each_positive():
    assert as_list(mining.semi_hard(*ROW)) == [(1.0, 2.0), (3.0, 3.5)]


def test_semi_hard_has_no_triplet_where_no_negative_is_farther():
    near = jnp.array([2.0, 0.5, 2.5, 1.5, 9.0])
    mined = mining.semi_hard(TO_POSITIVES, IS_POSITIVE, near, IS_NEGATIVE)
    assert as_list(mined) == [(1.0, 1.5)]
    assert np.isfinite(mined.d_an).all()


def test_semi_hard_does_not_take_a_negative_as_far_as_the_positive():
    tie = jnp.array([1.0, 1.0, 5.0, 1.0, 0.0])
    assert as_list(mining.semi_hard(TO_POSITIVES, IS_POSITIVE, tie, IS_NEGATIVE)) == [
        (1.0, 5.0),
        (3.0, 5.0),
    ]


def test_batch_all_takes_every_pair():
    expected = [(p, n) for p in (1.0, 3.0) for n in (2.0, 0.5, 4.0, 3.5)]
    assert as_list(mining.batch_all(*ROW)) == expected


def test_random_takes_one_negative_for_each_positive(key):
    found = as_list(mining.random(*ROW, key=key))
    assert [p for p, _ in found] == [1.0, 3.0]
    assert all(n in (2.0, 0.5, 4.0, 3.5) for _, n in found)


def test_random_is_uniform_over_the_negatives(key):
    draws = jax.vmap(lambda key: mining.random(*ROW, key=key).d_an[0])(jax.random.split(key, 4000))
    values, counts = np.unique(draws, return_counts=True)
    np.testing.assert_allclose(values, [0.5, 2.0, 3.5, 4.0])
    # 1000 each; five standard deviations are 137.
    assert np.abs(counts - 1000).max() < 137


def test_random_draws_the_same_whatever_the_padding(key):
    wide = (jnp.pad(TO_POSITIVES, (0, 5)), jnp.pad(IS_POSITIVE, (0, 5)))
    padded = mining.random(*wide, TO_NEGATIVES, IS_NEGATIVE, key=key)
    np.testing.assert_array_equal(padded.d_an[:3], mining.random(*ROW, key=key).d_an)


@pytest.mark.parametrize("name", sorted(mining.MINERS))
@pytest.mark.parametrize("missing", ["positives", "negatives", "both"])
def test_without_positives_or_negatives_there_is_no_triplet(name, missing, key):
    miner = mining.MINERS[name]
    if name == "random":
        miner = functools.partial(miner, key=key)
    positives = IS_POSITIVE & (missing == "negatives")
    negatives = IS_NEGATIVE & (missing == "positives")
    mined = miner(TO_POSITIVES, positives, TO_NEGATIVES, negatives)
    assert as_list(mined) == []
    assert all(np.isfinite(x).all() for x in mined[:2])
