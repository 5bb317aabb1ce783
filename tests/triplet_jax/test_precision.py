"""Losses in a lower precision, against float64 of rows that numpy rounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, cases, oracles, rounding
from triplet_jax import contrastive, distances, errors, losses
from triplet_jax.devices import collectives
from triplet_jax.xla import products

N, DIM = 24, 4
LABELS = np.arange(N) // 4
X = np.random.default_rng(3).normal(size=(N, DIM)).astype(np.float32)
X = np.asarray(jnp.asarray(X) - jnp.mean(jnp.asarray(X), axis=0))  # of mean 0, as losses make it
LOWER = ("tf32", "bfloat16")
MARGIN = 0.3
# What a number may lose of itself when it is rounded.
ROUNDING = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


def with_gradient(x, labels=LABELS, **settings):
    function = contrastive.contrastive_loss if "loss" in settings else losses.triplet_loss
    return jax.value_and_grad(lambda x: function(x, labels, **settings)[0])(x)


@functools.cache
def program(**settings):
    return jax.jit(functools.partial(with_gradient, **settings))


@pytest.mark.parametrize(
    ("miner", "precision"),
    cases.mostly_slow(
        [(m, p) for m in ("batch_hard", "semi_hard", "quantile") for p in LOWER],
        [("semi_hard", "bfloat16"), ("batch_hard", "tf32")],
    ),
)
def test_picks_are_those_of_rounded_rows_and_their_distances_those_of_the_rows(miner, precision):
    # Many negatives are about as far, so that rounding changes which is the nearest.
    x = np.random.default_rng(2).normal(size=X.shape)
    x = np.float32(np.round(x * 2) / 2 + 2 * ROUNDING[precision] * x)
    x = np.asarray(jnp.asarray(x) - jnp.mean(jnp.asarray(x), axis=0))
    low = oracles.mine(rounding.rounded(x, precision), LABELS, miner)
    exact = oracles.mine(x, LABELS, miner)
    assert 0 < len(set(low) - set(exact)) < len(low)
    settings = {"miner": miner, "margin": MARGIN, "average": "valid"}
    value, slope = program(precision=precision, **settings)(x)
    brute = functools.partial(oracles.loss_of, found=low, margin=MARGIN)
    assert float(value) == pytest.approx(brute(x)[0]["valid"], rel=1e-6)
    expected = oracles.slope(lambda x: brute(x)[0], x)["valid"]
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
    in_full, _ = program(**settings)(x)
    assert float(in_full) == pytest.approx(
        oracles.loss_of(x, exact, margin=MARGIN)[0]["valid"], rel=1e-6
    )


@pytest.mark.parametrize("precision", LOWER)
def test_a_miner_of_all_pairs_has_the_distances_of_rounded_rows(precision):
    value, slope = program(miner="batch_all", margin=MARGIN, average="valid", precision=precision)(
        X
    )
    rows = rounding.rounded(X, precision)
    brute = functools.partial(oracles.loss_of, found=oracles.mine(X, LABELS, "batch_all"))
    assert float(value) == pytest.approx(brute(rows, margin=MARGIN)[0]["valid"], rel=2e-6)
    assert float(value) != pytest.approx(brute(X, margin=MARGIN)[0]["valid"], rel=2e-6)
    expected = oracles.slope(lambda x: brute(x, margin=MARGIN)[0], rows)["valid"]
    atol = 4 * ROUNDING[precision] * np.abs(expected).max()
    np.testing.assert_allclose(slope, expected, rtol=0, atol=atol)


ERRORS = [
    (loss, precision)
    for loss in ("info_nce", "multi_similarity", "supervised_contrastive", "smooth_ap")
    for precision in products.PRECISIONS
]


@pytest.mark.parametrize(
    ("loss", "precision"), cases.mostly_slow(ERRORS, [("info_nce", "bfloat16")])
)
def test_the_error_of_a_contrastive_loss_is_that_of_rounding(loss, precision):
    temperature = {"info_nce": 0.1, "supervised_contrastive": 0.1, "multi_similarity": 0.02}
    value, slope = program(loss=loss, metric="cosine", precision=precision)(X)
    knobs = oracles.CONTRASTIVE.get(loss, {})
    brute = functools.partial(oracles.contrastive, labels=LABELS, name=loss, metric="cosine")
    if loss == "smooth_ap":
        expected, bound = float(program(loss=loss, metric="cosine")(X)[0]), 100
    else:
        expected, bound = brute(X, **knobs), 1 / temperature[loss]
    # A cosine is wrong by twice the rounding at most.
    assert float(value) == pytest.approx(expected, abs=2 * bound * ROUNDING[precision] + 1e-5)
    full = program(loss=loss, metric="cosine")(X)[1]
    error = jnp.linalg.norm(slope - full) / jnp.linalg.norm(full)
    assert error <= 2 * bound * ROUNDING[precision]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize(
    "metric", ["cosine", "dot", "euclidean", "squared_euclidean", "signal_to_noise"]
)
def test_distances_in_a_lower_precision(metric, precision):
    low = distances.in_precision(precision, metric)
    a, b = distances.prepared(low, jnp.asarray(X[:10]), jnp.asarray(X))

    @jax.jit
    def measure(a, b):
        return low.finish(low.pairwise(a, b.T)), jax.grad(lambda a: low.pairwise(a, b.T).sum())(a)

    found, slope = measure(a, b)
    expected = oracles.pairwise(X[:10], X, metric)
    scale = {"cosine": 1, "euclidean": 2, "signal_to_noise": 20}.get(metric, 20)
    np.testing.assert_allclose(found, expected, rtol=0, atol=4 * scale * ROUNDING[precision])
    assert np.abs(found - expected).max() > 1e-5
    assert np.isfinite(slope).all()
    if metric != "dot":
        # Rows of a and b that are equal stay so when they are rounded.
        np.testing.assert_allclose(np.diag(found[:, :10]), 0, atol=2e-3)
        assert np.all(found >= 0)


def test_a_row_of_zeros_has_the_cosine_0_in_a_lower_precision():
    low = distances.in_precision("bfloat16", "cosine")
    a, b = distances.prepared(low, jnp.zeros((1, DIM)), jnp.asarray(X))
    np.testing.assert_allclose(low.pairwise(a, b.T), 1.0, atol=4e-3)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_near_duplicates_are_measured_again_in_float32(metric):
    x = np.repeat(X[::2], 2, axis=0) * (1 + 1e-3 * X)
    settings = {"miner": "batch_all", "metric": metric, "margin": 9.0, "average": "valid"}

    def mean_d_ap(precision):
        labels = np.arange(N) // 2
        return calls.compiled(losses.triplet_loss, x, labels, precision=precision, **settings)[1]

    low, full = mean_d_ap("bfloat16"), mean_d_ap("float32")
    assert float(low["mean_d_ap"]) == pytest.approx(float(full["mean_d_ap"]), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "compare"),
    [
        ({"miner": "semi_hard"}, functools.partial(program, tile_size=5)),
        ({"miner": "batch_all"}, functools.partial(program, tile_size=5)),
        pytest.param(
            {"miner": "batch_all"},
            functools.partial(functools.partial, with_gradient),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_tiles_and_compiling_change_nothing(settings, compare):
    settings = settings | {"precision": "bfloat16"}
    value, slope = program(**settings)(X)
    other, other_slope = compare(**settings)(jnp.asarray(X))
    assert float(other) == pytest.approx(float(value), rel=2e-6)
    # A slope may be rounded up here and down there.
    np.testing.assert_allclose(other_slope, slope, atol=2e-4)


@pytest.mark.parametrize(
    "settings", [{"miner": "semi_hard"}, pytest.param({"loss": "info_nce"}, marks=pytest.mark.slow)]
)
def test_eight_devices_change_nothing(settings):
    settings = settings | {"precision": "bfloat16", "metric": "cosine"}
    value, slope = program(**settings)(X)
    axis = {"axis_name": collectives.DEVICES}
    run = functools.partial(with_gradient, **settings, **axis)
    shares = X.reshape(8, -1, DIM), LABELS.reshape(8, -1)
    values, slopes = jax.pmap(lambda x, y: run(x, labels=y), **axis)(*shares)
    np.testing.assert_allclose(values, float(value), rtol=2e-6)
    np.testing.assert_allclose(slopes.reshape(N, DIM) / 8, slope, atol=2e-4)


@pytest.mark.slow
def test_derivatives_of_any_order_in_a_lower_precision():
    settings = {
        "miner": "batch_all",
        "derivatives": "all",
        "margin": MARGIN,
        "penalty": "soft_margin",
    }

    def hessian(precision):
        def value(row):
            return losses.triplet_loss(X.copy() + row, LABELS, precision=precision, **settings)[0]

        direction = jnp.asarray(np.eye(DIM)[0], jnp.float32) * (LABELS % 2)[:, None]
        return jax.jit(jax.hessian(lambda t: value(t * direction)))(1.0)

    assert float(hessian("tf32")) == pytest.approx(float(hessian("float32")), rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "float16"}, "precision='float16' is not known"),
        ({"precision": "tf32", "metric": "manhattan"}, "'tf32' does not suit manhattan"),
        ({"precision": "tf32", "mining_metric": "jaccard"}, "'tf32' does not suit jaccard"),
    ],
)
def test_what_has_no_such_precision_is_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        losses.triplet_loss(X, LABELS, **settings)
    if "mining_metric" not in settings:
        with pytest.raises(errors.InputError, match=message):
            contrastive.contrastive_loss(X, LABELS, loss="pairs", **{"metric": "cosine"} | settings)
