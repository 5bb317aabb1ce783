"""Triplet losses against brute force in float64: every miner, penalty and metric."""

import functools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from tests.support.triplet_programs import (
    COUNTS,
    MARGIN,
    MINERS,
    PARAMS,
    check,
    jitted,
    program,
    spread,
)
from triplet_jax import distances, errors, losses, mining, penalties
from triplet_jax.engine import picks, positive_masks

DETERMINISTIC = [name for name in MINERS if name not in oracles.RANDOM]
METRICS, PENALTIES = sorted(distances.METRICS), sorted(losses.PENALTIES)

# One number of rows for each compiled program, and a power of two: the mean of a grid, and
# with it every squared distance, is then exact in float32, so that ties are ties.
seeds = st.integers(0, 3)
grids = hnp.arrays(np.int8, (16, 3), elements=st.integers(-2, 2)).map(np.float32)
# Reals, of which each row is there up to three times: a positive, a negative or both.
duplicated = seeds.map(lambda s: spread(s, 9)[np.random.default_rng(s).integers(0, 9, 16)])
labellings = st.one_of(
    st.lists(st.integers(0, 5), min_size=16, max_size=16),
    st.lists(st.sampled_from([7, 7, 7, 7, -3, 2]), min_size=16, max_size=16),  # imbalanced
    st.permutations(range(16)),  # nobody has a positive
    st.just([4] * 16),  # nobody has a negative
).map(np.array)


@pytest.mark.parametrize("miner", DETERMINISTIC)
@hypothesis.given(x=st.one_of(grids, duplicated), y=labellings)
def test_every_miner_agrees_with_brute_force(miner, x, y):
    check(x, y, miner)


@pytest.mark.parametrize("miner", cases.mostly_slow(DETERMINISTIC, ["angular", "semi_hard"]))
@hypothesis.given(x=st.one_of(grids, duplicated), y=labellings, seed=seeds)
def test_every_miner_finds_triplets_among_references(miner, x, y, seed):
    # Among the references are rows of the batch, and labels of no anchor.
    labels = np.random.default_rng(seed).permutation([*y[:12], 99, 99, 5, 5])
    check(x[:4], y[:4], miner, refs=x[::-1].copy(), ref_labels=labels, tile_size=None)


@pytest.mark.parametrize(
    ("miner", "penalty"),
    cases.mostly_slow(
        [(miner, penalty) for miner in ("semi_hard", "batch_all") for penalty in PENALTIES],
        # Of given triplets all penalties are tested; these take a way of their own to them.
        [
            ("semi_hard", "anchor_swap"),
            ("semi_hard", "margin_based"),
            ("semi_hard", "selectively_contrastive"),
            ("batch_all", "anchor_swap"),
        ],
    ),
)
@hypothesis.given(y=labellings, seed=seeds)
def test_every_penalty_agrees_with_brute_force(miner, penalty, y, seed):
    metric = "cosine" if penalty == "selectively_contrastive" else "euclidean"
    check(spread(seed, 16), y, miner, penalty=penalty, metric=metric, average="active")


@pytest.mark.parametrize(
    ("miner", "metric"),
    cases.mostly_slow(
        [(miner, m) for miner in ("semi_hard", "batch_hard", "batch_all") for m in METRICS],
        [*[("batch_hard", m) for m in METRICS], ("batch_all", "cosine")],
    ),
)
@hypothesis.given(y=labellings, seed=seeds)
def test_every_metric_agrees_with_brute_force(miner, metric, y, seed):
    x = spread(seed, 16)
    if metric == "jaccard":
        x = np.abs(x)
    check(x, y, miner, metric=metric)


@pytest.mark.parametrize("penalty", ["anchor_swap", "hinge"])
@hypothesis.given(x=grids, y=labellings)
def test_of_ties_the_first_in_order_of_label_and_place_is_picked(penalty, x, y):
    # A swap's value, and every gradient, tell which one it was.
    x = x[:, :2].repeat(2, axis=1)[:, :3]
    check(x, y, "semi_hard", penalty=penalty, average="active")


@pytest.mark.parametrize("miner", ["semi_hard", "semi_hard_tfa"])
def test_rules_that_sort_where_positives_are_many_agree(miner, monkeypatch):
    monkeypatch.setattr(mining, "MANY", 4)
    monkeypatch.setattr(picks, "MANY", 4)
    program.cache_clear()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = np.float32(rng.integers(-2, 3, (16, 3))), rng.integers(0, 4, 16)
        check(x, y, miner, penalty="anchor_swap")
    program.cache_clear()


@pytest.mark.parametrize(
    ("dim", "n"),
    cases.mostly_slow([(dim, n) for dim in (3, 8, 65) for n in (16, 33)], [(3, 16)]),
)
def test_a_negative_equal_to_a_positive_is_not_beyond_it(dim, n):
    x = np.repeat(spread(0, n, dim), 2, axis=0)
    y = np.tile([0, 1], n)  # each row once in either class
    for miner in ("semi_hard", "hard"):
        _, stats = jitted(x, y, miner=miner)
        assert stats["num_valid"] == len(oracles.mine(x, y, miner))


@pytest.mark.parametrize(
    "miner", cases.mostly_slow(oracles.RANDOM, ["boltzmann", "semi_hard_facenet"])
)
@hypothesis.given(x=grids, y=labellings, seed=st.integers(0, 99))
def test_random_miners_draw_a_triplet_wherever_one_is_allowed(miner, x, y, seed):
    x = x / 4
    *_, stats = program(miner=miner)(x, y, key=jax.random.key(seed))
    d = oracles.pairwise(x, x, "euclidean")
    drawn = [
        (a, one)
        for a, positives, negatives in oracles.candidates_of(y)
        for one in oracles.chances(d[a], positives, negatives, miner, dim=3)
    ]
    assert stats["num_valid"] == len(drawn)
    for name, column in (("mean_d_ap", 0), ("mean_d_an", 1)):
        ranges = [[d[a, pair[column]] for pair in one] for a, one in drawn]
        total = float(stats[name]) * len(drawn)
        assert sum(map(min, ranges)) - 1e-3 <= total <= sum(map(max, ranges)) + 1e-3


CHANCES = [
    ("random", {}, 3),
    ("semi_hard_facenet", {"width": 0.9}, 3),
    ("distance_weighted", {}, 3),
    ("distance_weighted", {"cutoff": 0.7}, 16),
    ("boltzmann", {}, 3),
    ("boltzmann", {"beta": 0.0}, 3),
    ("boltzmann", {"beta": 6.0}, 3),
]


@pytest.mark.parametrize(
    ("miner", "knobs", "dim"), cases.mostly_slow(CHANCES, [CHANCES[i] for i in (0, 1, 3, 6)])
)
def test_random_miners_draw_with_the_chances_of_their_definition(miner, knobs, dim):
    x = distances.unit(spread(5, 14, dim))
    refs = x[1:][np.argsort(oracles.pairwise(x[:1], x[1:], "euclidean")[0])]
    labels = np.array([0, 0, 0] + [1] * 10)
    only = miner == "boltzmann"
    if not only:  # one positive, so that one draw is one triplet
        refs, labels = refs[2:], labels[2:]
    mine = functools.partial(mining.MINERS[miner], **knobs)

    def draw(key):
        _, stats = losses.triplet_loss(
            x[:1], np.array([0]), miner=mine, references=refs, reference_labels=labels, key=key
        )
        return stats["mean_d_ap"], stats["mean_d_an"], stats["num_valid"]

    draws = 4000
    d_ap, d_an, valid = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(1), draws))
    assert np.all(valid == 1)
    d = oracles.pairwise(x[:1], refs, "euclidean")[0]
    positives, negatives = (list(np.where(labels == label)[0]) for label in (0, 1))
    [expected] = oracles.chances(d, positives, negatives, miner, dim=dim, **knobs)
    assert len(expected) > 1
    seen = dict.fromkeys(expected, 0)
    for one, other in zip(np.asarray(d_ap), np.asarray(d_an), strict=True):
        pair = (
            positives[np.argmin(np.abs(d[positives] - one))],
            negatives[np.argmin(np.abs(d[negatives] - other))],
        )
        assert d[list(pair)] == pytest.approx([one, other], abs=1e-5)
        seen[pair] += 1  # a KeyError if it may not be drawn
    for pair, chance in expected.items():
        deviation = math.sqrt(draws * chance * (1 - chance))
        assert abs(seen[pair] - draws * chance) < 5 * deviation + 1


@pytest.mark.parametrize("miner", cases.mostly_slow(oracles.RANDOM, ["semi_hard_facenet"]))
def test_draws_do_not_depend_on_tiles_or_on_padding(miner, key):
    # One class of 30 among pairs: in one tile everybody's row is as wide as its positives,
    # and in tiles of one the pairs' are narrow.
    y = np.random.default_rng(0).permutation([*range(9), *range(9), *[99] * 30])
    assert len(positive_masks.widths(48)) > 1
    x = spread(5, 48) / 2
    settings = {"miner": miner, "key": key, "average": "valid"}
    run = functools.partial(jax.value_and_grad(losses.triplet_loss, has_aux=True), **settings)
    ((loss, stats), gradient), ((tiled, tiled_stats), tiled_gradient) = (
        jax.jit(functools.partial(run, tile_size=tile_size))(x, y) for tile_size in (None, 1)
    )
    assert all(stats[name] == tiled_stats[name] for name in COUNTS)
    assert 0 < float(loss) == pytest.approx(float(tiled), rel=1e-5)
    np.testing.assert_allclose(gradient, tiled_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("miner", ["semi_hard", "multi_similarity"])
def test_order_of_the_batch_changes_nothing(miner):
    x, y = spread(2, 15), np.random.default_rng(1).integers(0, 5, 15)
    order = np.random.default_rng(2).permutation(15)
    loss, stats = jitted(x, y, miner=miner)
    shuffled_loss, shuffled_stats = jitted(x[order], y[order], miner=miner)
    assert float(shuffled_loss) == pytest.approx(float(loss), rel=1e-5)
    assert stats["num_active"] == shuffled_stats["num_active"] > 0


AT_THE_EDGE = ["semi_hard", "batch_hard", "distance_weighted", "multi_similarity", "quantile"]


@pytest.mark.parametrize("miner", cases.mostly_slow(MINERS, AT_THE_EDGE))
def test_batches_at_the_edge(miner, key):
    x, run = spread(0, 16), program(miner=miner)
    draws = {"key": key} if miner in oracles.RANDOM else {}
    for labels, counts in (
        ([0] * 16, (240, 0)),
        (range(16), (0, 240)),
        ([0] * 15 + [1], (210, 30)),  # the last is a negative of others and no anchor
    ):
        loss, (gradient, _), stats = run(x, np.array(labels), **draws)
        assert (stats["num_positive_pairs"], stats["num_negative_pairs"]) == counts
        assert np.isfinite(loss)
        assert np.isfinite(gradient).all()
        if 0 in counts:
            assert loss == 0
            assert not np.any(gradient)
            assert stats["num_valid"] == stats["num_active"] == 0
    # All in one place: nothing is farther than anything else, nor seen under an angle.
    equal = np.full((16, 3), 0.1, np.float32)
    loss, (gradient, _), stats = run(equal, np.arange(16) // 2, **draws)
    nothing = {"angular", "easy", "semi_hard", "semi_hard_band", "semi_hard_facenet"}
    finds = miner not in nothing | {"easy_positive_semi_hard"}
    assert (stats["num_valid"] > 0) == finds
    assert float(loss) == pytest.approx(MARGIN if finds else 0.0)
    assert not np.any(gradient)


@pytest.mark.parametrize(
    ("miner", "metric"),
    cases.mostly_slow(
        [(miner, metric) for miner in ("batch_hard", "batch_all") for metric in METRICS],
        [("batch_hard", "cosine"), ("batch_hard", "minkowski"), ("batch_all", "euclidean")],
    ),
)
def test_gradient_is_finite_where_all_are_equal(miner, metric):
    for value in (0.0, 0.1, 1e4):
        x, y = np.full((16, 3), value, np.float32), np.arange(16) // 4
        loss, (gradient, _), _ = program(miner=miner, metric=metric)(x, y)
        assert float(loss) == pytest.approx(MARGIN, rel=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("tile_size", [7, pytest.param(None, marks=pytest.mark.slow)])
def test_duplicates_are_at_no_distance(tile_size):
    y = np.random.default_rng(0).permutation(61) // 4
    x = np.array(spread(0, 16))[y]
    run = program(miner="batch_all", penalty="margin_based", tile_size=tile_size)
    _, (gradient, _), stats = run(x, y)
    assert stats["mean_d_ap"] == 0
    # Nor is there a slope between them, which would be that of rounding.
    one, *others = gradient[y == 3]
    np.testing.assert_allclose(others, [one] * 3, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("miner", ["semi_hard", "batch_all", "boltzmann"])
def test_jit_equals_eager(miner, key):
    x, y = spread(4, 12), np.arange(12) // 3
    run = functools.partial(losses.triplet_loss, miner=miner, key=key)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, run(x, y), jax.jit(run)(x, y))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distances_of_near_duplicates_keep_their_digits(offset):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 16))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    apart = 1e-4 if not offset else 0.3
    x = np.repeat(centres, 2, axis=0) + apart * rng.normal(size=(16, 16)) / 4
    x, y = np.float32(x + offset), np.arange(16) // 2
    d = oracles.pairwise(x, x, "euclidean")
    for miner in ("batch_hard", "semi_hard", "easy_positive_hard"):
        chosen = oracles.mine(x, y, miner)
        _, stats = jitted(x, y, miner=miner)
        assert stats["num_valid"] == len(chosen)
        for name, column in (("mean_d_ap", 1), ("mean_d_an", 2)):
            expected = np.mean([d[row[0], row[column]] for row in chosen])
            assert float(stats[name]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "squared_euclidean"])
def test_semi_hard_decides_rightly_among_near_duplicates(metric):
    # Sixteen rows about 1e-4 from one another, whose order a matrix product cannot tell.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=16) + 1e-4 * rng.normal(size=(16, 16)), np.arange(16) % 4
    x = np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))
    chosen = oracles.mine(x, y, "semi_hard", metric)
    _, stats = jitted(x, y, miner="semi_hard", metric=metric)
    assert stats["num_valid"] == len(chosen)
    d = oracles.pairwise(x, x, metric)
    expected = np.mean([d[a, n] for a, _, n in chosen])
    assert float(stats["mean_d_an"]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"miner": "semi-hard"}, "miner='semi-hard' is not known. Did you mean 'semi_hard'"),
        ({"metric": "l2"}, "metric='l2' is not known"),
        ({"penalty": "softmargin"}, "Did you mean 'soft_margin'"),
        ({"average": "mean"}, "Allowed: active, valid"),
        ({"miner": "random"}, "key=None"),
        ({"miner": functools.partial(mining.boltzmann, beta=2.0)}, "key=None"),
        ({"tile_size": 0}, "tile_size=0 must be at least 1"),
        ({"references": jnp.ones((2, 3))}, "given together"),
        ({"metric": "minkowski"}, "'minkowski' takes p, and was given no parameters"),
        ({"metric_params": {"p": 2.0}}, "'euclidean' takes no parameters, and was given p"),
        (
            {"metric": "mahalanobis", "metric_params": {"p": 2.0}},
            "takes precision, and was given p",
        ),
        ({"metric": "minkowski", "metric_params": {"p": 0.5}}, "p=0.5 must be at least 1"),
        ({"miner": "angular", "metric": "cosine"}, "does not suit angular"),
        ({"miner": "distance_weighted", "metric": "cosine"}, "does not suit distance_weighted"),
        ({"penalty": "selectively_contrastive"}, "does not suit selectively_contrastive"),
        ({"miner": functools.partial(mining.angular, degrees=9), "metric": "cosine"}, "angular"),
        ({"miner": "angular", "metric": distances.cosine}, "='cosine' does not suit angular"),
        ({"penalty": functools.partial(penalties.hinge, margin=1)}, "penalty sets margin=1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        losses.triplet_loss(spread(0, 4), np.array([0, 0, 1, 1]), **settings)


@pytest.mark.parametrize("far", [2**31, -(2**31) - 1])
def test_labels_that_do_not_fit_are_refused(far):
    with pytest.raises(errors.InputError, match=f"{far}"):
        losses.triplet_loss(spread(0, 2), np.array([0, far]))


@pytest.mark.parametrize(
    ("miner", "metric"),
    cases.mostly_slow(
        [(miner, metric) for miner in ("batch_all", "semi_hard") for metric in distances.METRICS],
        [("batch_all", "cosine"), ("semi_hard", "euclidean")],
    ),
)
@pytest.mark.parametrize("far", [np.nan, pytest.param(1e6, marks=pytest.mark.slow)])
def test_a_row_that_is_hidden_has_no_part(miner, metric, far):
    x, y = spread(4, 10), np.array([0, 1, 1, 2, 2, 2, 5, 0, 1, 9])
    mask = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1, 0], bool)
    if metric == "jaccard":
        x = np.abs(x)
    run = functools.partial(
        losses.triplet_loss,
        miner=miner,
        metric=metric,
        margin=1.0,
        metric_params=PARAMS.get(metric),
    )
    hidden = np.where(mask[:, None], x, far).astype(np.float32)
    masked = jax.jit(jax.value_and_grad(lambda x: run(x, y, mask=jnp.asarray(mask))[0]))(hidden)
    kept = jax.jit(jax.value_and_grad(lambda x: run(x, y[mask])[0]))(x[mask])
    np.testing.assert_allclose(masked[0], kept[0], rtol=1e-5)
    np.testing.assert_allclose(masked[1][mask], kept[1], rtol=1e-4, atol=1e-6)
    assert not masked[1][~mask].any()


@pytest.mark.parametrize(
    ("metric", "named"),
    [
        (distances.euclidean, {"metric": "euclidean"}),
        (
            functools.partial(distances.minkowski, p=3.0),
            {"metric": "minkowski", "metric_params": {"p": 3.0}},
        ),
    ],
)
def test_a_metric_may_be_its_function(metric, named):
    x, y = spread(0, 16), np.arange(16) % 4
    miner = "angular" if metric is distances.euclidean else "batch_hard"
    by_function, by_name = (
        jax.jit(functools.partial(losses.triplet_loss, labels=y, miner=miner, **settings))(x)[0]
        for settings in ({"metric": metric}, named)
    )
    assert by_function == by_name
