import functools
import math

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import oracles
from triplet_jax import distances, errors, losses, mining
from triplet_jax.devices import collectives
from triplet_jax.engine import label_runs, picks

MINERS = [name for name in sorted(mining.MINERS) if name != "semi_hard_hardest_beyond"]
DETERMINISTIC = [name for name in MINERS if name not in oracles.RANDOM]
PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]])
PARAMS = {"minkowski": {"p": 3.0}, "mahalanobis": {"precision": jnp.float32(PRECISION)}}
MARGIN = 0.3
COUNTS = ("num_valid", "num_active", "num_positive_pairs", "num_negative_pairs")

# One number of rows for each compiled program, and a power of two: the mean of a grid, and
# with it every squared distance, is then exact in float32, so that ties are ties.
few = st.sampled_from([4, 16])
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


def spread(seed, n, dim=3):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, dim)), jnp.float32)


def suited(miner="batch_hard", penalty="hinge", metric=None):
    """The metric that a miner or a penalty needs."""
    return metric or ("cosine" if penalty == "selectively_contrastive" else "euclidean")


def with_gradients(x, y, *, refs=None, ref_labels=None, **settings):
    """The loss, its gradients in embeddings and references, and the stats."""

    def value(x, refs):
        return losses.triplet_loss(x, y, references=refs, reference_labels=ref_labels, **settings)

    (loss, stats), gradients = jax.value_and_grad(value, (0, 1), has_aux=True)(x, refs)
    return loss, gradients, stats


def jitted(x, y, **settings):
    """`triplet_loss`, compiled: op by op it is slow."""
    return jax.jit(functools.partial(losses.triplet_loss, **settings))(x, y)


@functools.cache
def program(**settings):
    """A compiled `with_gradients`, kept for the next example."""
    settings["metric_params"] = PARAMS.get(settings.get("metric"))
    return jax.jit(functools.partial(with_gradients, margin=MARGIN, **settings))


def check(
    x,
    y,
    miner,
    penalty="hinge",
    metric="euclidean",
    average="active",
    refs=None,
    ref_labels=None,
    **settings,
):
    """Against brute force: value, counts, mean distances and gradient."""
    run = program(miner=miner, penalty=penalty, metric=metric, average=average, **settings)
    loss, (of_x, of_refs), stats = run(x, y, refs=refs, ref_labels=ref_labels)
    params = PARAMS.get(metric)
    chosen = oracles.mine(x, y, miner, metric, refs, ref_labels, params)
    brute = functools.partial(
        oracles.loss_of, found=chosen, metric=metric, margin=MARGIN, penalty=penalty, params=params
    )
    means, valid, active = brute(x, refs=refs)
    assert (stats["num_valid"], stats["num_active"]) == (valid, active)
    d = oracles.pairwise(x, x if refs is None else refs, metric, **(params or {}))
    for name, column in (("mean_d_ap", 1), ("mean_d_an", 2)):
        expected = np.mean([d[row[0], row[column]] for row in chosen]) if chosen else 0.0
        assert float(stats[name]) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert float(loss) == pytest.approx(means[average], rel=1e-5, abs=1e-6)
    slope = oracles.slope(lambda x: brute(x, refs=refs)[0], x)[average]
    np.testing.assert_allclose(of_x, slope, rtol=1e-3, atol=2e-4)
    if refs is not None:
        slope = oracles.slope(lambda r: brute(x, refs=r)[0], refs)[average]
        np.testing.assert_allclose(of_refs, slope, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("miner", DETERMINISTIC)
@hypothesis.given(
    x=st.one_of(grids, duplicated), y=labellings, rows=st.sampled_from([4, 16]), seed=seeds
)
def test_every_miner_agrees_with_brute_force(miner, x, y, rows, seed):
    if rows == 16:
        check(x, y, miner, average="valid", tile_size=5)
    else:
        # References, among which are rows of the batch, and labels of no anchor.
        labels = np.random.default_rng(seed).permutation([*y[:12], 99, 99, 5, 5])
        check(x[:4], y[:4], miner, refs=x[::-1].copy(), ref_labels=labels)


@pytest.mark.parametrize("miner", ["semi_hard", "batch_all"])
@pytest.mark.parametrize("penalty", sorted(losses.PENALTIES))
@hypothesis.given(y=labellings, seed=seeds)
def test_every_penalty_agrees_with_brute_force(miner, penalty, y, seed):
    check(spread(seed, 16), y, miner, penalty, suited(penalty=penalty), tile_size=7)


@pytest.mark.parametrize("miner", ["semi_hard", "batch_hard", "batch_all"])
@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@hypothesis.given(y=labellings, seed=seeds)
def test_every_metric_agrees_with_brute_force(miner, metric, y, seed):
    x = spread(seed, 16)
    if metric == "jaccard":
        x = np.abs(x)
    check(x, y, miner, metric=metric, average="valid", tile_size=7)


@pytest.mark.parametrize("penalty", ["anchor_swap", "hinge"])
@hypothesis.given(x=grids, y=labellings)
def test_of_ties_the_first_in_order_of_label_and_place_is_picked(penalty, x, y):
    # A swap's value, and every gradient, tell which one it was.
    check(x[:, :2].repeat(2, axis=1)[:, :3], y, "semi_hard", penalty, tile_size=7)


@pytest.mark.parametrize("miner", ["semi_hard", "semi_hard_tfa"])
def test_rules_that_sort_where_positives_are_many_agree(miner, monkeypatch):
    monkeypatch.setattr(mining, "MANY", 4)
    monkeypatch.setattr(picks, "MANY", 4)
    program.cache_clear()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, y = np.float32(rng.integers(-2, 3, (16, 3))), rng.integers(0, 4, 16)
        check(x, y, miner, "anchor_swap", tile_size=5)
    program.cache_clear()


@pytest.mark.parametrize("dim", [3, 8, 65])
@pytest.mark.parametrize("n", [16, 33])
def test_a_negative_equal_to_a_positive_is_not_beyond_it(dim, n):
    x = np.repeat(spread(0, n, dim), 2, axis=0)
    y = np.tile([0, 1], n)  # each row once in either class
    _, stats = jax.jit(losses.triplet_loss)(x, y)
    assert stats["num_valid"] == len(oracles.mine(x, y, "semi_hard"))
    _, stats = jax.jit(functools.partial(losses.triplet_loss, miner="hard"))(x, y)
    assert stats["num_valid"] == len(oracles.mine(x, y, "hard"))


@pytest.mark.parametrize("miner", oracles.RANDOM)
@hypothesis.given(x=grids, y=labellings, n=few, seed=st.integers(0, 99))
def test_random_miners_draw_a_triplet_wherever_one_is_allowed(miner, x, y, n, seed):
    x, y = x[:n] / 4, y[:n]
    run = program(miner=miner, tile_size=None if n == 4 else 5)
    *_, stats = run(x, y, key=jax.random.key(seed))
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


@pytest.mark.parametrize(
    ("miner", "knobs", "dim"),
    [
        ("random", {}, 3),
        ("semi_hard_facenet", {"width": 0.9}, 3),
        ("distance_weighted", {}, 3),
        ("distance_weighted", {"cutoff": 0.7}, 16),
        ("boltzmann", {}, 3),
        ("boltzmann", {"beta": 0.0}, 3),
        ("boltzmann", {"beta": 6.0}, 3),
    ],
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


def test_boltzmann_at_infinity_is_batch_hard(key):
    x, y = spread(1, 16), np.arange(16) // 4
    mine = functools.partial(mining.boltzmann, beta=math.inf)
    loss, stats = jitted(x, y, miner=mine, key=key)
    expected, expected_stats = jitted(x, y, miner="batch_hard")
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert stats["num_valid"] == expected_stats["num_valid"]


# Two tight classes and scattered rest: the devices' active counts differ widely, so that a
# mean of the devices' means would be another number.
UNEVEN_LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 2, 4, 3, 5, 2, 4])
UNEVEN = np.array(spread(7, 16))
UNEVEN[:8] = UNEVEN[:8] * 0.01 + np.repeat([[9.0], [-9.0]], 4, axis=0)
ON_DEVICES = [(miner, (2, 4, 8)[i % 3]) for i, miner in enumerate(MINERS)]
ON_DEVICES += [(miner, n) for miner in ("semi_hard", "batch_all", "boltzmann") for n in (1, 2, 4)]
ON_DEVICES = [(*case, losses.AVERAGES[i % 2]) for i, case in enumerate(sorted(set(ON_DEVICES)))]
# Too far apart for these to find a triplet.
NEAR = ("band", "semi_hard_band", "semi_hard_facenet", "multi_similarity", "distance_weighted")


@pytest.mark.parametrize(("miner", "devices", "average"), ON_DEVICES)
def test_devices_change_nothing(miner, devices, average, key):
    x, y = (spread(9, 16) / 3 if miner in NEAR else UNEVEN), UNEVEN_LABELS
    settings = {"miner": miner, "margin": MARGIN, "average": average}
    draws = {"key": key} if miner in oracles.RANDOM else {}
    if draws:
        whole = jax.jit(functools.partial(with_gradients, **settings))
        expected, (slope, _), stats = whole(x, y, **draws)
    else:
        chosen = oracles.mine(x, y, miner)

        def brute(x):
            return oracles.loss_of(x, chosen, margin=MARGIN)[0]

        means, *counts = oracles.loss_of(x, chosen, margin=MARGIN)
        expected, slope = means[average], oracles.slope(brute, x)[average]
        stats = dict(zip(COUNTS, counts, strict=False))

    def on_device(x, y):
        # A shared parameter, whose gradient is reduced as train_step reduces it.
        def of_shift(shift):
            mine = jax.lax.axis_index(collectives.DEVICES) * len(x)
            rows = x + jax.lax.dynamic_slice_in_dim(shift, mine, len(x))
            return losses.triplet_loss(rows, y, axis_name=collectives.DEVICES, **settings, **draws)

        found, gradient = jax.value_and_grad(of_shift, has_aux=True)(jnp.zeros((16, 3)))
        return found, collectives.mean(gradient, collectives.DEVICES)

    lifted = jax.pmap(
        on_device,
        axis_name=collectives.DEVICES,
        out_axes=None,
        devices=jax.devices()[:devices],
    )
    shard = (devices, 16 // devices)
    (loss, found_stats), gradient = lifted(x.reshape(*shard, 3), y.reshape(shard))
    assert stats["num_valid"] > 0
    assert float(loss) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)
    for name, number in stats.items():
        assert float(found_stats[name]) == pytest.approx(float(number), rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=2e-4)


def test_uneven_active_counts_tell_a_global_mean_from_a_mean_of_means():
    """The batch of the test above does separate the two."""
    x = jnp.asarray(UNEVEN)
    refs = {"references": x, "reference_labels": UNEVEN_LABELS}
    whole, _ = jitted(x, UNEVEN_LABELS, miner="batch_all")
    halves = [
        jitted(x[rows], UNEVEN_LABELS[rows], miner="batch_all", **refs)[0]
        for rows in (slice(8), slice(8, 16))
    ]
    assert abs(np.mean(halves) - whole) > 0.05 * whole


@pytest.mark.parametrize("miner", oracles.RANDOM)
def test_draws_do_not_depend_on_tiles_or_on_padding(miner, key):
    # One class of 30 among pairs: in one tile everybody's row is as wide as its positives,
    # and in tiles of one the pairs' are narrow.
    y = np.random.default_rng(0).permutation([*range(9), *range(9), *[99] * 30])
    assert len(label_runs.widths(48)) > 1
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
    run = jax.jit(functools.partial(losses.triplet_loss, miner=miner))
    loss, stats = run(x, y)
    shuffled_loss, shuffled_stats = run(x[order], y[order])
    assert float(shuffled_loss) == pytest.approx(float(loss), rel=1e-5)
    assert stats["num_active"] == shuffled_stats["num_active"] > 0


@pytest.mark.parametrize("miner", MINERS)
def test_batches_at_the_edge(miner, key):
    x = spread(0, 4)
    run = program(miner=miner, tile_size=None)
    draws = {"key": key} if miner in oracles.RANDOM else {}
    for labels, counts in (
        ([0, 0, 0, 0], (12, 0)),
        ([0, 1, 2, 3], (0, 12)),
        ([0, 0, 0, 1], (6, 6)),  # the last is a negative of others and no anchor
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
    equal = np.full((4, 3), 0.1, np.float32)
    loss, (gradient, _), stats = run(equal, np.array([0, 0, 1, 1]), **draws)
    nothing = {"angular", "easy", "semi_hard", "semi_hard_band", "semi_hard_facenet"}
    finds = miner not in nothing | {"easy_positive_semi_hard"}
    assert (stats["num_valid"] > 0) == finds
    assert float(loss) == pytest.approx(MARGIN if finds else 0.0)
    assert not np.any(gradient)


@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@pytest.mark.parametrize("miner", ["batch_hard", "batch_all"])
def test_gradient_is_finite_where_all_are_equal(metric, miner):
    for value in (0.0, 0.1, 1e4):
        x, y = np.full((16, 3), value, np.float32), np.arange(16) // 4
        run = program(miner=miner, penalty="hinge", metric=metric, average="valid", tile_size=7)
        loss, (gradient, _), _ = run(x, y)
        assert float(loss) == pytest.approx(MARGIN, rel=1e-5)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("tile_size", [7, None])
def test_duplicates_are_at_no_distance(tile_size):
    y = np.random.default_rng(0).permutation(61) // 4
    x = np.array(spread(0, 16))[y]
    run = program(miner="batch_all", penalty="margin_based", average="valid", tile_size=tile_size)
    _, (gradient, _), stats = run(x, y)
    assert stats["mean_d_ap"] == 0
    # Nor is there a slope between them, which would be that of rounding.
    one, *others = gradient[y == 3]
    np.testing.assert_allclose(others, [one] * 3, rtol=1e-4)


@pytest.mark.parametrize("miner", ["semi_hard", "batch_all", "boltzmann"])
def test_jit_equals_eager(miner, key):
    x, y = spread(4, 12), np.arange(12) // 3
    run = functools.partial(losses.triplet_loss, miner=miner, key=key)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, run(x, y), jax.jit(run)(x, y))


def traced_once(make, values, **fixed):
    """The losses of `triplet_loss(x, y, **make(*value))`, compiled once."""
    x, y = spread(0, 16), np.arange(16) // 4
    traces = 0

    def run(*value):
        nonlocal traces
        traces += 1
        return losses.triplet_loss(x, y, **make(*value), **fixed)

    run = jax.jit(run)
    found = [run(*(jnp.asarray(v) for v in value)) for value in values]
    assert traces == 1
    return found, lambda miner, **knobs: oracles.mine(x, y, miner, **knobs), x


@pytest.mark.parametrize(
    ("miner", "names", "values"),
    [
        ("angular", ["degrees"], [(10.0,), (20.0,), (35.0,)]),
        ("band", ["low", "high"], [(0.0, 0.2), (-0.7, 0.1), (0.3, 2.0)]),
        ("batch_hard_skip", ["fraction"], [(0.0,), (0.35,), (0.8,)]),
        ("easy", ["margin"], [(0.2,), (0.9,)]),
        ("multi_similarity", ["epsilon"], [(0.1,), (-1.2,)]),
        ("quantile", ["hardness"], [(1.0,), (0.6,), (0.0,)]),
        ("rank", ["n"], [(1,), (3,), (12,), (13,), (0,)]),
        ("rank_range", ["first", "last"], [(1, 5), (3, 4), (12, 40), (13, 40), (5, 2)]),
        ("semi_hard_band", ["width"], [(0.2,), (1.0,)]),
    ],
)
def test_a_traced_knob_of_a_miner_does_not_recompile(miner, names, values):
    rule = mining.MINERS[miner]
    found, mine, x = traced_once(
        lambda *value: {"miner": functools.partial(rule, **dict(zip(names, value, strict=True)))},
        values,
        penalty="soft_margin",
    )
    for (loss, stats), value in zip(found, values, strict=True):
        chosen = mine(miner, **dict(zip(names, value, strict=True)))
        means, valid, _ = oracles.loss_of(x, chosen, penalty="soft_margin")
        assert stats["num_valid"] == valid
        assert float(loss) == pytest.approx(means["active"], rel=1e-5)
    assert len({float(loss) for loss, _ in found}) > 1


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_a_traced_beta_of_boltzmann_does_not_recompile(beta, key):
    found, _, _ = traced_once(
        lambda beta: {"miner": functools.partial(mining.boltzmann, beta=beta), "key": key},
        [(beta,), (math.inf,)],
    )
    hardest, _ = jitted(spread(0, 16), np.arange(16) // 4, miner="batch_hard")
    assert found[0][0] < found[1][0] == pytest.approx(float(hardest), rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "knob", "metric", "values"),
    [
        ("margin_based", "beta", "euclidean", (0.7, 1.2, 1.9)),
        ("selectively_contrastive", "temperature", "cosine", (0.1, 0.5)),
        ("selectively_contrastive", "ceiling", "cosine", (0.8, -0.5)),
        ("selectively_contrastive", "weight", "cosine", (1.0, 0.3)),
    ],
)
@pytest.mark.parametrize("closed_over", [False, True], ids=["partial", "closure"])
def test_knobs_of_penalties_are_traced_and_learned(penalty, knob, metric, values, closed_over):
    x, y = spread(3, 16), np.arange(16) // 4
    traces = 0

    def value(number, margin, miner):
        rule = functools.partial(losses.PENALTIES[penalty], **{knob: number})
        set_rule = (lambda d_ap, d_an, margin: rule(d_ap, d_an, margin)) if closed_over else rule
        settings = {"miner": miner, "metric": metric, "penalty": set_rule, "margin": margin}
        return losses.triplet_loss(x, y, average="valid", tile_size=6, **settings)[0]

    @jax.jit
    def run(number, margin):
        nonlocal traces
        traces += 1
        return {
            miner: jax.value_and_grad(value, (0, 1))(number, margin, miner)
            for miner in ("semi_hard", "batch_all")
        }

    for number in values:
        for miner, (loss, gradient) in run(number, MARGIN).items():
            chosen = oracles.mine(x, y, miner, metric)

            def brute(at, chosen=chosen):
                knobs = {"metric": metric, "penalty": penalty, "margin": at[1], knob: at[0]}
                return oracles.loss_of(x, chosen, **knobs)[0]

            assert float(loss) == pytest.approx(brute((number, MARGIN))["valid"], rel=1e-5)
            expected = oracles.slope(brute, np.array([number, MARGIN]))["valid"]
            np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
    assert traces == 1


@pytest.mark.parametrize("miner", ["semi_hard", "batch_all"])
def test_parameters_of_a_metric_are_learned(miner):
    x, y = spread(3, 16), np.arange(16) // 4

    def value(metric, **params):
        settings = {"miner": miner, "average": "valid", "margin": MARGIN, "tile_size": 6}
        return losses.triplet_loss(x, y, metric=metric, metric_params=params, **settings)[0]

    def brute(metric, **params):
        chosen = oracles.mine(x, y, miner, metric, params=params)
        return lambda **params: oracles.loss_of(
            x, chosen, metric=metric, params=params, margin=MARGIN
        )[0]

    of_p = jax.jit(jax.grad(lambda p: value("minkowski", p=p)))(jnp.float32(3.0))
    fixed = brute("minkowski", p=3.0)
    expected = oracles.slope(lambda p: fixed(p=p[0]), np.array([3.0]))["valid"][0]
    assert float(of_p) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # A step along a symmetric direction, as only symmetric matrices have a meaning.
    step = np.array([[0.3, 0.1, 0.2], [0.1, -0.2, 0.0], [0.2, 0.0, 0.1]])

    def along(t):
        return value("mahalanobis", precision=jnp.float32(PRECISION) + t * jnp.float32(step))

    of_precision = jax.jit(jax.grad(along))(jnp.float32(0))
    fixed = brute("mahalanobis", precision=PRECISION)
    expected = oracles.slope(lambda t: fixed(precision=PRECISION + t[0] * step), np.array([0.0]))
    assert float(of_precision) == pytest.approx(expected["valid"][0], rel=1e-3, abs=1e-5)


def test_a_pick_that_is_no_given_distance_makes_the_loss_nan():
    def halved(to_positives, is_positive, to_negatives, is_negative, *, which):
        mined = mining.batch_hard(to_positives, is_positive, to_negatives, is_negative)
        return mined._replace(**{which: 0.5 * getattr(mined, which)})

    x, y = spread(0, 8), np.arange(8) // 2
    for which in ("d_ap", "d_an"):
        mine = functools.partial(halved, which=which)
        assert np.isnan(jitted(x, y, miner=mine)[0])

    def swapped(to_positives, is_positive, to_negatives, is_negative):
        mined = mining.batch_hard(to_positives, is_positive, to_negatives, is_negative)
        return mining.Triplets(mined.d_an, mined.d_ap, mined.weight)

    assert np.isnan(jitted(x, y, miner=swapped)[0])


def mean_of_negatives(to_positives, is_positive, to_negatives, is_negative):
    """The nearest positive, and a distance that is nobody's."""
    near = jnp.min(to_positives, where=is_positive, initial=jnp.inf)
    found = jnp.any(is_positive) & jnp.any(is_negative)
    far = jnp.mean(to_negatives, where=is_negative)
    return mining.Triplets(
        *(jnp.where(found, d, 0.0)[None, None] for d in (near, far)), found[None, None]
    )


def test_distances_that_a_miner_computes_are_differentiated():
    x, y = spread(3, 8), np.array([0, 0, 0, 1, 1, 2, 2, 5])

    def brute(x):
        d = oracles.pairwise(x, x, "euclidean")
        gaps = [
            min(d[a, p] for p in positives) - np.mean([d[a, n] for n in negatives]) + 1.0
            for a, positives, negatives in oracles.candidates_of(y)
            if positives and negatives
        ]
        return {"loss": np.mean(np.maximum(gaps, 0.0))}

    def value(x):
        settings = {"miner": mean_of_negatives, "margin": 1.0, "average": "valid"}
        return losses.triplet_loss(x, y, tile_size=3, **settings)[0]

    loss, gradient = jax.jit(jax.value_and_grad(value))(jnp.asarray(x))
    assert 0 < float(loss) == pytest.approx(brute(np.float64(x))["loss"], rel=1e-5)
    np.testing.assert_allclose(gradient, oracles.slope(brute, x)["loss"], rtol=1e-3, atol=1e-4)


def test_the_parts_of_an_answer_broadcast():
    def hardest_negative(to_positives, is_positive, to_negatives, is_negative):
        d_an = jnp.min(to_negatives, where=is_negative, initial=jnp.inf)
        found = jnp.any(is_negative)
        return mining.Triplets(to_positives, jnp.where(found, d_an, 0.0), is_positive & found)

    for n in (8, 12):
        x, y = spread(0, n), np.arange(n) // 2
        loss, stats = jitted(x, y, miner=hardest_negative)
        expected, expected_stats = jitted(x, y, miner="rank")
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        assert stats["num_valid"] == expected_stats["num_valid"]


def test_weights_of_triplets_count():
    def weighted(to_positives, is_positive, to_negatives, is_negative):
        mined = mining.batch_all(to_positives, is_positive, to_negatives, is_negative)
        return mined._replace(weight=mined.weight * jnp.exp(-to_negatives))

    x, y = spread(0, 8), np.arange(8) // 2
    d = oracles.pairwise(x, x, "euclidean")
    a, p, n = np.array(oracles.mine(x, y, "batch_all")).T
    value, weight = np.maximum(d[a, p] - d[a, n] + 0.2, 0), np.exp(-d[a, n])
    for average, among in (("active", value > 0), ("valid", value >= 0)):
        loss, stats = jitted(x, y, miner=weighted, average=average)
        assert float(loss) == pytest.approx((weight * value).sum() / weight[among].sum(), rel=1e-5)
        assert stats["num_active"] == (value > 0).sum()


def test_knobs_of_a_penalty_that_are_no_numbers_stay_as_they_are():
    def penalty(d_ap, d_an, margin, *, form, sign=1.0):
        return sign * losses.PENALTIES[form](d_ap, d_an, margin)

    x, y = spread(0, 8), np.arange(8) // 2
    loss, _ = jitted(x, y, penalty=functools.partial(penalty, form="ratio", sign=2.0))
    expected, _ = jitted(x, y, penalty="ratio")
    assert float(loss) == pytest.approx(2 * float(expected), rel=1e-6)


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
        _, stats = jax.jit(functools.partial(losses.triplet_loss, miner=miner))(x, y)
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
    _, stats = jax.jit(functools.partial(losses.triplet_loss, metric=metric))(x, y)
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
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        losses.triplet_loss(spread(0, 4), np.array([0, 0, 1, 1]), **settings)


@pytest.mark.parametrize("far", [2**31, -(2**31) - 1])
def test_labels_that_do_not_fit_are_refused(far):
    with pytest.raises(errors.InputError, match=f"{far}"):
        losses.triplet_loss(spread(0, 2), np.array([0, far]))


# -- masks -------------------------------------------------------------------------------


@pytest.mark.parametrize("miner", ["semi_hard", "batch_all", "batch_hard", "quantile"])
def test_a_masked_batch_is_the_batch_without_the_hidden_rows(miner):
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 5)).astype(np.float32)
    # The largest label there is, which hidden rows are sorted under.
    y = random.choice([3, 1, 2**31 - 1], 24).astype(np.int32)
    masked = jax.jit(
        jax.value_and_grad(
            lambda x, mask, tile_size: losses.triplet_loss(
                x, y, miner=miner, mask=mask, tile_size=tile_size
            ),
            has_aux=True,
        ),
        static_argnums=2,
    )
    for shown in (np.arange(24) % 3 > 0, y != 2**31 - 1, np.arange(24) < 5, np.zeros(24, bool)):
        (loss, stats), slope = masked(x, shown, 5)

        def alone(x, shown=shown):
            return losses.triplet_loss(x[shown], y[shown], miner=miner)

        if shown.sum():
            program = jax.jit(jax.value_and_grad(alone, has_aux=True))
            (expected, counts), expected_slope = program(x)
        else:
            expected, counts, expected_slope = 0.0, dict.fromkeys(stats, 0.0), np.zeros_like(x)
        # A hinge near zero has lost digits of the distances it is the difference of.
        assert float(loss) == pytest.approx(float(expected), rel=2e-5)
        np.testing.assert_allclose(slope, expected_slope, atol=1e-6)
        assert {k: float(v) for k, v in stats.items()} == pytest.approx(
            {k: float(v) for k, v in counts.items()}, rel=2e-5
        )


def test_a_mask_hides_rows_of_all_devices():
    random = np.random.default_rng(1)
    x, y = random.normal(size=(32, 4)).astype(np.float32), random.integers(0, 4, 32)
    mask = random.random(32) < 0.6
    one = losses.triplet_loss(jnp.asarray(x), y, mask=jnp.asarray(mask))[0]
    each = jax.pmap(
        lambda x, y, mask: losses.triplet_loss(x, y, mask=mask, axis_name="devices")[0],
        axis_name="devices",
    )
    eight = each(x.reshape(8, 4, 4), y.reshape(8, 4), mask.reshape(8, 4))
    np.testing.assert_allclose(eight, one, rtol=1e-6)
