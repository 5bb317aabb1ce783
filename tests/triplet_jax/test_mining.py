import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import errors, mining

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


KNOBS = {"angular": {"positives_to_negatives": jnp.ones((3, 5))}, "distance_weighted": {"dim": 4}}


def asked(name, key):
    """A miner with what the engine gives it."""
    more = KNOBS.get(name, {}) | ({"key": key} if name in oracles.RANDOM else {})
    return functools.partial(mining.MINERS[name], **more)


@pytest.mark.parametrize("name", sorted(mining.MINERS))
@pytest.mark.parametrize(
    "missing", cases.mostly_slow(["positives", "negatives", "both"], ["positives", "negatives"])
)
def test_without_positives_or_negatives_there_is_no_triplet(name, missing, key):
    positives = IS_POSITIVE & (missing == "negatives")
    negatives = IS_NEGATIVE & (missing == "positives")
    mined = asked(name, key)(TO_POSITIVES, positives, TO_NEGATIVES, negatives)
    assert as_list(mined) == []
    assert all(np.isfinite(x).all() for x in mined[:2])


@pytest.mark.parametrize(
    ("miner", "expected"),
    [
        # Negatives at 0.5, 2, 3.5 and 4; positives at 1 and 3.
        (mining.semi_hard_tfa, [(1.0, 2.0), (3.0, 3.5)]),
        (mining.semi_hard_tfsim, [(3.0, 3.5)]),
        (mining.easy_positive_semi_hard, [(1.0, 2.0)]),
        (mining.easy_positive_hard, [(1.0, 0.5)]),
        (mining.hard, [(1.0, 0.5), (3.0, 2.0), (3.0, 0.5)]),
        (functools.partial(mining.easy, margin=1.0), [(1.0, 4.0), (1.0, 3.5)]),
        (
            functools.partial(mining.easy, margin=0.75),
            [(1.0, 2.0), (1.0, 4.0), (1.0, 3.5), (3.0, 4.0)],
        ),
        (functools.partial(mining.semi_hard_band, width=0.5), [(3.0, 3.5)]),
        (functools.partial(mining.band, low=-1.0, high=0.5), [(1.0, 0.5), (3.0, 2.0), (3.0, 3.5)]),
        (functools.partial(mining.rank, n=3), [(1.0, 3.5), (3.0, 3.5)]),
        (functools.partial(mining.rank, n=5), []),
        (functools.partial(mining.rank, n=0), []),
        (functools.partial(mining.rank_range, first=2, last=2), [(1.0, 2.0), (3.0, 2.0)]),
        (functools.partial(mining.rank_range, first=4, last=9), [(1.0, 4.0), (3.0, 4.0)]),
        (functools.partial(mining.rank_range, first=1, last=0), []),
        (functools.partial(mining.quantile, hardness=0.0), [(1.0, 4.0), (3.0, 4.0)]),
        (functools.partial(mining.quantile, hardness=0.7), [(1.0, 2.0), (3.0, 2.0)]),
        (functools.partial(mining.hardest_share, share=0.5), [(1.0, 2.0), (3.0, 2.0)]),
        (functools.partial(mining.hardest_share, share=0.01), [(1.0, 0.5), (3.0, 0.5)]),
        (functools.partial(mining.batch_hard_skip, fraction=0.5), [(1.0, 3.5)]),
        (functools.partial(mining.batch_hard_skip, fraction=1.0), []),
        (
            functools.partial(mining.multi_similarity, epsilon=0.0),
            [(p, n) for p in (1.0, 3.0) for n in (2.0, 0.5)],
        ),
    ],
)
def test_rules_by_hand(miner, expected):
    assert as_list(miner(*ROW)) == expected


def test_the_easiest_stands_in_where_no_negative_is_beyond():
    near = jnp.array([2.0, 0.5, 2.5, 1.5, 9.0])
    row = (TO_POSITIVES, IS_POSITIVE, near, IS_NEGATIVE)
    assert as_list(mining.semi_hard_tfa(*row)) == [(1.0, 1.5), (3.0, 2.5)]
    assert as_list(mining.semi_hard_tfsim(*row)) == [(3.0, 2.5)]


def test_ranks_are_of_the_distances_whatever_their_sign_and_ties():
    values = np.array([-3.0, -0.0, 0.0, 5.0, -3.0, 1e-40, 1e30, -7.5, 5.0], np.float32)
    for n in range(1, 10):
        mined = mining.rank(
            jnp.ones(1), jnp.ones(1, bool), jnp.asarray(values), jnp.ones(9, bool), n=n
        )
        assert mined.d_an[0] == pytest.approx(np.sort(values)[n - 1], abs=1e-30)


@pytest.mark.parametrize("name", oracles.RANDOM)
def test_draws_do_not_depend_on_the_padding_of_positives(name, key):
    more = {k: v for k, v in asked(name, key).keywords.items() if k != "positives_to_negatives"}
    more |= {"width": 1.5} if name == "semi_hard_facenet" else {}
    more |= {"farthest": 9.0} if name == "distance_weighted" else {}
    miner = mining.MINERS[name]
    wide = (jnp.pad(TO_POSITIVES, (0, 5)), jnp.pad(IS_POSITIVE, (0, 5)))
    found = as_list(miner(*ROW, **more))
    assert found == as_list(miner(*wide, TO_NEGATIVES, IS_NEGATIVE, **more))
    assert found


@pytest.mark.parametrize("name", ["random", "semi_hard_facenet", "distance_weighted"])
def test_every_positive_draws_for_itself_what_is_allowed(name, key):
    d = np.array([0.2, 0.4, 0.3, 1.2, 0.6, 0.5, 1.5, 0.45])
    positives, negatives = [0, 1, 2], [3, 4, 5, 6, 7]
    knobs = {"width": 0.27} if name == "semi_hard_facenet" else {}
    more = {"dim": 4} if name == "distance_weighted" else {}
    row = (jnp.float32(d[:3]), jnp.ones(3, bool), jnp.float32(d[3:]), jnp.ones(5, bool))
    draws = 4000
    mined = jax.vmap(lambda key: mining.MINERS[name](*row, **knobs, **more, key=key))(
        jax.random.split(key, draws)
    )
    expected = oracles.chances(d, positives, negatives, name, **knobs, **more)
    assert np.all(mined.weight)
    for p, chances in zip(positives, expected, strict=True):
        drawn = np.argmin(np.abs(np.array(mined.d_an)[:, p, None] - d[3:]), axis=1) + 3
        for n in negatives:
            chance = chances.get((p, n), 0.0)
            deviation = np.sqrt(draws * chance * (1 - chance))
            assert abs((drawn == n).sum() - draws * chance) <= 5 * deviation
    # No two of them draw together.
    assert len(np.unique(np.array(mined.d_an), axis=0)) > max(map(len, expected))


def test_distance_weighted_weights_do_not_vanish_in_high_dimensions(key):
    d = np.array([0.9, 1.1, 1.2, 1.3])
    mined = mining.distance_weighted(
        jnp.ones(1), jnp.ones(1, bool), jnp.float32(d), jnp.ones(4, bool), dim=4096, key=key
    )
    assert as_list(mined) == [(1.0, pytest.approx(0.9))]


@pytest.mark.parametrize("dim", [2, 3, 64, 2048])
def test_distance_weighted_draws_a_duplicate_by_a_cutoff_that_is_nearly_zero(dim, key):
    row = (jnp.ones(1), jnp.ones(1, bool), jnp.float32([0.0, 0.9, 1.2]), jnp.ones(3, bool))

    def mine(cutoff, key):
        return mining.distance_weighted(*row, cutoff=cutoff, dim=dim, key=key)

    for cutoff in (0.0, 1e-20, 1e-3):
        mined = jax.vmap(jax.jit(mine), in_axes=(None, 0))(cutoff, jax.random.split(key, 400))
        assert np.all(mined.weight)
        drawn = np.array(mined.d_an).ravel()
        if dim == 2:  # distances on a circle: 1 / q = sqrt(1 - d^2 / 4)
            expected = np.sqrt(1 - np.array([0.0, 0.9, 1.2]) ** 2 / 4)
            shares = [(np.abs(drawn - d) < 1e-6).mean() for d in (0.0, 0.9, 1.2)]
            np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.1)
        elif dim >= 64:
            assert np.all(drawn == 0)  # it outweighs all others by the definition


@pytest.mark.parametrize("cutoff", [0, 0.0, -0.5, float("nan")])
def test_distance_weighted_refuses_a_cutoff_at_which_a_weight_is_infinite(cutoff, key):
    row = (jnp.ones(1), jnp.ones(1, bool), jnp.zeros(1), jnp.ones(1, bool))
    with pytest.raises(errors.InputError, match=f"cutoff={cutoff} must be above 0"):
        mining.distance_weighted(*row, cutoff=cutoff, dim=4, key=key)


def test_two_names_of_a_rule_are_one_rule():
    assert mining.MINERS["semi_hard_hardest_beyond"] is mining.easy_positive_semi_hard


def test_positives_of_an_anchor_draw_independently():
    draws, negatives = 8000, jnp.arange(4) / 8.0
    draw = jax.vmap(
        lambda key: (
            mining.semi_hard_facenet(
                -jnp.ones(2), jnp.ones(2, bool), negatives, jnp.ones(4, bool), width=2.0, key=key
            ).d_an
        )
    )
    drawn = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), draws)) * 8, int)
    seen = np.bincount(drawn @ [4, 1], minlength=16)
    assert np.all(abs(seen - draws / 16) < 5 * math.sqrt(draws / 16))


def test_a_miner_that_wraps_another_has_none_of_its_marks():
    for marked in (mining.batch_all, mining.easy, mining.multi_similarity):

        @functools.wraps(marked)
        def far(*row, marked=marked):
            found = marked(*row)
            return found._replace(weight=found.weight & (found.d_an > 3))

        assert not mining.judges_triplets(far) and not mining.is_separable(far)
        assert mining.choice(far) is None
        assert mining.choice(functools.partial(far)) is None


def test_a_rule_that_chooses_cannot_choose_padding():
    everything = mining.by_candidate(lambda p, _, n, __: (p >= 0, n >= 0))
    assert as_list(everything(*ROW)) == as_list(mining.batch_all(*ROW))
    chosen = mining.choice(everything)(*ROW)
    np.testing.assert_array_equal(chosen[0], IS_POSITIVE)
    np.testing.assert_array_equal(chosen[1], IS_NEGATIVE)
