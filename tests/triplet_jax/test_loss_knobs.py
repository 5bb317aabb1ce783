"""Knobs, metrics and miners that a caller sets: traced, learned, or written by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from tests.support.triplet_programs import MARGIN, PRECISION, jitted, spread
from triplet_jax import losses, mining


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


KNOBS = [
    ("angular", ["degrees"], [(10.0,), (20.0,), (35.0,)]),
    ("band", ["low", "high"], [(0.0, 0.2), (-0.7, 0.1), (0.3, 2.0)]),
    ("batch_hard_skip", ["fraction"], [(0.0,), (0.35,), (0.8,)]),
    ("easy", ["margin"], [(0.2,), (0.9,)]),
    ("multi_similarity", ["epsilon"], [(0.1,), (-1.2,)]),
    ("quantile", ["hardness"], [(1.0,), (0.6,), (0.0,)]),
    ("hardest_share", ["share"], [(0.5,), (0.1,), (0.005,)]),
    ("rank", ["n"], [(1,), (3,), (12,), (13,), (0,)]),
    ("rank_range", ["first", "last"], [(1, 5), (3, 4), (12, 40), (13, 40), (5, 2)]),
    ("semi_hard_band", ["width"], [(0.2,), (1.0,)]),
]


QUICK = ("band", "multi_similarity", "quantile", "rank_range")


@pytest.mark.parametrize(
    ("miner", "names", "values"),
    cases.mostly_slow(KNOBS, [case for case in KNOBS if case[0] in QUICK]),
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


def test_boltzmann_at_infinity_is_batch_hard_and_its_beta_does_not_recompile(key):
    found, _, _ = traced_once(
        lambda beta: {"miner": functools.partial(mining.boltzmann, beta=beta), "key": key},
        [(0.0,), (2.0,), (math.inf,)],
    )
    hardest, stats = jitted(spread(0, 16), np.arange(16) // 4, miner="batch_hard")
    losses_of_beta = [float(loss) for loss, _ in found]
    assert max(losses_of_beta[:2]) < losses_of_beta[2]
    assert losses_of_beta[2] == pytest.approx(float(hardest), rel=1e-6)
    assert found[2][1]["num_valid"] == stats["num_valid"]


LEARNED = [
    (*knob, closed_over)
    for knob in (
        ("margin_based", "beta", "euclidean", (0.7, 1.2, 1.9)),
        ("selectively_contrastive", "temperature", "cosine", (0.1, 0.5)),
        ("selectively_contrastive", "ceiling", "cosine", (0.8, -0.5)),
        ("selectively_contrastive", "weight", "cosine", (1.0, 0.3)),
    )
    for closed_over in (False, True)
]


@pytest.mark.parametrize(
    ("penalty", "knob", "metric", "values", "closed_over"),
    cases.mostly_slow(LEARNED, LEARNED[:1]),
)
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


@pytest.mark.parametrize("miner", ["semi_hard", pytest.param("batch_all", marks=pytest.mark.slow)])
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
