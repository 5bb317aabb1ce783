"""Losses of given triplets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, cases, oracles
from triplet_jax import distances, errors, losses, penalties
from triplet_jax.devices import collectives

PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]])
PARAMS = {"minkowski": {"p": 3.0}, "mahalanobis": {"precision": jnp.float32(PRECISION)}}
MARGIN = 0.3
ROWS = 12


def rows(seed, n=ROWS, dim=3):
    """Anchors, positives and negatives, in float64."""
    x = np.abs(np.random.default_rng(seed).normal(size=(3, n, dim)))  # jaccard takes no negatives
    return x.astype(np.float32).astype(np.float64)


def brute(x, *, metric="euclidean", penalty="hinge", shown=slice(None)):
    """Both averages and the counts, from the definition."""
    a, p, n = x
    at = np.arange(len(a))[shown]
    found = np.stack([at, at, at + len(a)], axis=1)
    return oracles.loss_of(
        a,
        found.tolist(),
        metric=metric,
        margin=MARGIN,
        penalty=penalty,
        refs=np.concatenate([p, n]),
        params=PARAMS.get(metric),
    )


def ours(x, **settings):
    settings = {"margin": MARGIN} | settings | PARAMS.get(settings.get("metric"), {})
    return losses.of_triplets(*x, **settings)


@functools.cache
def program(**settings):
    return jax.jit(jax.value_and_grad(functools.partial(ours, **settings), has_aux=True))


PAIRS = [
    (metric, penalty)
    for metric in sorted(distances.METRICS)
    for penalty in sorted(losses.PENALTIES)
    if penalty != "selectively_contrastive" or metric == "cosine"  # the one it is defined for
]


QUICK = [pair for pair in PAIRS if pair[1] == "hinge" or pair[0] == "cosine"]


@pytest.mark.parametrize(("metric", "penalty"), cases.mostly_slow(PAIRS, QUICK))
def test_every_metric_and_penalty_agree_with_the_definition(metric, penalty):
    x = rows(sum(map(ord, metric + penalty)))
    (loss, stats), gradient = program(metric=metric, penalty=penalty)(jnp.float32(x))
    means, valid, active = brute(x, metric=metric, penalty=penalty)
    assert (stats["num_valid"], stats["num_active"]) == (valid, active) and valid == ROWS
    assert float(loss) == pytest.approx(means["active"], rel=1e-5)
    slope = oracles.slope(lambda x: brute(x, metric=metric, penalty=penalty)[0], x)["active"]
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("average", losses.AVERAGES)
def test_hidden_triplets_do_not_count_whatever_they_hold(average):
    x = rows(1)
    shown = np.arange(ROWS) % 3 > 0
    dirty = np.where(shown[:, None], x, [np.nan, np.inf, 0.0])
    (loss, stats), gradient = program(average=average)(jnp.float32(dirty), mask=shown)
    means, valid, _ = brute(x, shown=shown)
    assert stats["num_valid"] == valid == 8
    assert float(loss) == pytest.approx(means[average], rel=1e-5)
    slope = oracles.slope(lambda x: brute(x, shown=shown)[0], x)[average]
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=2e-4)


def test_without_triplets_the_loss_is_zero():
    for x, mask in ((np.zeros((3, 0, 2)), None), (rows(0), np.zeros(ROWS, bool))):
        loss, stats = losses.of_triplets(*jnp.float32(x), mask=mask)
        assert (loss, stats["num_valid"], stats["mean_d_ap"]) == (0, 0, 0)


def test_equal_rows_have_no_slope():
    x = jnp.ones((3, 4, 2))
    (loss, _), gradient = program()(x)
    assert float(loss) == pytest.approx(MARGIN)
    assert not np.any(gradient)


def test_it_is_the_mined_loss_of_the_same_triplets():
    x = jnp.float32(rows(2)[0])
    labels = np.repeat([0, 1, 2], 4)
    a, p, n = np.array(oracles.mine(x, labels, "semi_hard")).T
    given, _ = ours((x[a], x[p], x[n]))
    by_rule = {"miner": "semi_hard", "margin": MARGIN}
    mined, _ = calls.compiled(losses.triplet_loss, x, labels, **by_rule)
    assert float(given) == pytest.approx(float(mined), rel=1e-6)


def test_devices_change_nothing():
    # Another number of active triplets on each device, so that a mean of means would differ.
    x = jnp.float32(rows(3, n=16))
    shown = jnp.arange(16) < 9

    def on_device(x, shown):
        return ours(x, mask=shown, axis_name=collectives.DEVICES)

    split = collectives.over_devices(on_device, in_axes=(1, 0))
    loss, stats = split(x.reshape(3, 8, 2, -1), shown.reshape(8, 2))
    alone, their_stats = ours(x, mask=shown)
    assert float(loss) == pytest.approx(float(alone), rel=1e-6)
    assert stats["num_active"] == their_stats["num_active"]


def test_derivatives_of_both_modes_and_orders():
    x = jnp.float32(rows(4, n=3, dim=2))

    @jax.jit
    def value(x):
        return ours(x, penalty="soft_margin")[0]

    along = jnp.float32(rows(5, n=3, dim=2))
    _, forward = jax.jvp(value, (x,), (along,))
    assert float(forward) == pytest.approx(float(jnp.vdot(jax.grad(value)(x), along)), rel=1e-5)

    def brute_slope(at):
        def definition(x):
            d = [np.linalg.norm(x[0] - other, axis=1) for other in x[1:]]
            return {"value": np.log1p(np.exp(d[0] - d[1])).mean()}

        return oracles.slope(definition, at, step=1e-4)["value"]

    step = 1e-4
    wide, far = np.float64(x), np.float64(along)
    second = (brute_slope(wide + step * far) - brute_slope(wide - step * far)) / (2 * step)
    found = jax.jvp(jax.grad(value), (x,), (along,))[1]
    np.testing.assert_allclose(found, second, rtol=1e-3, atol=1e-4)
    of_reverse = jax.grad(lambda x: jnp.vdot(jax.grad(value)(x), along))(x)
    np.testing.assert_allclose(of_reverse, second, rtol=1e-3, atol=1e-4)


def test_a_penalty_learns_its_knobs():
    x = jnp.float32(rows(6))

    def value(beta):
        penalty = functools.partial(penalties.margin_based, beta=beta)
        return ours(x, penalty=penalty, average="valid")[0]

    step = 1e-2  # piecewise linear
    slope = (value(1.2 + step) - value(1.2 - step)) / (2 * step)
    assert float(jax.grad(value)(1.2)) == pytest.approx(float(slope), abs=1e-2)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"positives": np.zeros((3, 2))}, r"\(4, 2\), \(3, 2\) and \(4, 2\)"),
        ({"anchors": np.zeros(4)}, r"anchors has shape \(4,\)"),
        ({"metric": "cosin"}, "Did you mean 'cosine'"),
        ({"penalty": "hing"}, "Did you mean 'hinge'"),
        ({"average": "mean"}, "average='mean'"),
        ({"penalty": "selectively_contrastive"}, "does not suit selectively_contrastive"),
        ({"p": 2.0}, "takes no parameters, and was given p"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_refused(change, message):
    arrays = dict.fromkeys(("anchors", "positives", "negatives"), np.zeros((4, 2)))
    with pytest.raises(errors.InputError, match=message):
        losses.of_triplets(**(arrays | change))
