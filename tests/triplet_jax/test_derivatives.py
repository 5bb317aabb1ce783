"""Derivatives in every mode and of any order, against float64 differences of the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases, oracles
from triplet_jax import contrastive, distances, errors, losses, mining

MINERS = [name for name in sorted(mining.MINERS) if name != "semi_hard_hardest_beyond"]
METRICS, PENALTIES = sorted(distances.METRICS), sorted(losses.PENALTIES)
PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]])
PARAMS = {"minkowski": {"p": 3.0}, "mahalanobis": {"precision": jnp.float32(PRECISION)}}
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 5])
X, V = (0.7 * np.float32(rows) for rows in np.random.default_rng(3).normal(size=(2, 8, 3)))
REFERENCES = 0.7 * np.float32(np.random.default_rng(4).normal(size=(6, 3)))
REFERENCE_LABELS = np.array([2, 1, 1, 0, 7, 0])
MARGIN, STEP = 0.3, 1e-4
SLOW = pytest.mark.slow


def triplet(x, derivatives="all", **settings):
    settings = {"average": "valid", "margin": MARGIN, "tile_size": 5} | settings
    return losses.triplet_loss(x, LABELS, derivatives=derivatives, **settings)[0]


def whole(x, derivatives="all", **settings):
    return contrastive.contrastive_loss(x, LABELS, derivatives=derivatives, **settings)[0]


def along(function, x, v):
    """Value, slope and curvature of a function along `v`, forward over reverse."""
    value, gradient = jax.value_and_grad(function)(x)
    _, change = jax.jvp(jax.grad(function), (x,), (v,))
    return value, gradient, change


def of_definition(function, x, v):
    """The same of a float64 function, by central differences."""
    x, v = np.float64(x), np.float64(v)

    def gradient(x):
        return oracles.slope(lambda x: {"": function(x)}, x, STEP)[""]

    change = (gradient(x + STEP * v) - gradient(x - STEP * v)) / (2 * STEP)
    return function(x), gradient(x), change


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=3e-4 * scale)


RULED = [name for name in MINERS if name not in oracles.RANDOM]
SUITED = {"angular": "euclidean", "selectively_contrastive": "cosine"}
# Every metric and penalty once with a miner of either kind; then every miner.
CASES = [
    (("semi_hard", "batch_all")[i % 2], PENALTIES[i % len(PENALTIES)], metric)
    for i, metric in enumerate(METRICS)
]
CASES += [
    pytest.param(miner, PENALTIES[i % len(PENALTIES)], METRICS[i % len(METRICS)], marks=SLOW)
    for i, miner in enumerate(RULED)
]


# Four of the metrics, with as many penalties.
QUICK = [CASES[i] for i in (1, 2, 5, 7)]


@pytest.mark.parametrize(
    ("miner", "penalty", "metric"),
    cases.mostly_slow(CASES[: len(METRICS)], QUICK) + CASES[len(METRICS) :],
)
def test_second_derivatives_are_those_of_the_definition(miner, penalty, metric):
    metric = SUITED.get(miner, SUITED.get(penalty, metric))
    if penalty == "selectively_contrastive" != metric and miner == "angular":
        penalty = "hinge"
    x = np.abs(X) if metric == "jaccard" else X
    params = PARAMS.get(metric, {})
    chosen = oracles.mine(x, LABELS, miner, metric, params=params)

    def brute(x):
        settings = {"metric": metric, "margin": MARGIN, "penalty": penalty, "params": params}
        return oracles.loss_of(x, chosen, **settings)[0]["valid"]

    settings = {"miner": miner, "penalty": penalty, "metric": metric, "metric_params": params}
    found = jax.jit(functools.partial(along, functools.partial(triplet, **settings)))(x, V)
    assert_close(found, of_definition(brute, x, V))


@pytest.mark.parametrize("miner", [pytest.param(name, marks=SLOW) for name in oracles.RANDOM])
def test_second_derivatives_of_what_was_drawn(miner, key):
    x = distances.unit(jnp.asarray(X))
    mine = mining.MINERS[miner]
    if miner == "semi_hard_facenet":  # a band that nothing enters or leaves within a step
        mine = functools.partial(mine, width=0.9)
    settings = {"miner": mine, "penalty": "soft_margin", "key": key, "average": "active"}
    loss = jax.jit(functools.partial(triplet, **settings))
    _, _, change = jax.jit(functools.partial(along, functools.partial(triplet, **settings)))(x, V)
    step = 0.02
    second = (loss(x + step * V) - 2 * loss(x) + loss(x - step * V)) / step**2
    assert float(jnp.vdot(V, change)) == pytest.approx(float(second), rel=0.03, abs=0.01)


@pytest.mark.parametrize("name", cases.mostly_slow(sorted(contrastive.LOSSES), ["proxy_anchor"]))
def test_second_derivatives_of_contrastive_losses(name):
    metric = {"lifted": "euclidean", "pairs": "euclidean", "n_pairs": "dot"}.get(name, "cosine")
    # What a loss takes as a constant is one to every derivative.
    frozen = X, REFERENCES
    knobs = {"circle": {"scale": 5.0}, "multi_similarity": {"beta": 5.0}}.get(name, {})
    knobs |= {"arcface": {"scale": 5.0}, "pairs": {"power": 3.0, "margin": 1.2}}.get(name, {})
    knobs |= {"fast_ap": {"bins": 7}}.get(name, {})  # no similarity stands where a bin begins

    def brute(x):
        settings = (name, metric, REFERENCES, REFERENCE_LABELS)
        return oracles.contrastive(x, LABELS, *settings, frozen=frozen, **knobs)

    settings = {
        "loss": functools.partial(contrastive.LOSSES[name], **knobs),
        "metric": metric,
        "references": jnp.asarray(REFERENCES),
        "reference_labels": REFERENCE_LABELS,
    }
    found = jax.jit(functools.partial(along, functools.partial(whole, **settings)))(X, V)
    assert_close(found, of_definition(brute, X, V))


def test_all_ways_to_a_second_derivative_agree():
    loss = functools.partial(triplet, miner="batch_all", penalty="soft_margin")

    @jax.jit
    def ways(x, v):
        gradient = jax.grad(loss)
        return {
            "hessian": jnp.tensordot(jax.hessian(loss)(x), v, axes=[(2, 3), (0, 1)]),
            "reverse over reverse": jax.grad(lambda x: jnp.vdot(gradient(x), v))(x),
            "reverse over forward": jax.grad(lambda x: jax.jvp(loss, (x,), (v,))[1])(x),
            "forward over forward": jax.jacfwd(lambda x: jax.jvp(loss, (x,), (v,))[1])(x),
            "linearized": jax.linearize(gradient, x)[1](v),
        }

    chosen = oracles.mine(X, LABELS, "batch_all")
    settings = {"margin": MARGIN, "penalty": "soft_margin"}
    *_, expected = of_definition(lambda x: oracles.loss_of(x, chosen, **settings)[0]["valid"], X, V)
    for found in ways(X, V).values():
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_gradient_penalty_reaches_knobs_too():
    """Of learned numbers the mixed derivatives count: beta moves where the gradient acts."""
    chosen = oracles.mine(X, LABELS, "semi_hard")
    settings = {"penalty": "squared_hinge", "average": "valid"}

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def penalised(x, margin):
        gradient = jax.grad(lambda x: triplet(x, margin=margin, penalty="squared_hinge"))(x)
        return jnp.sum(gradient**2)

    def brute(x, margin):
        def loss(x):
            return oracles.loss_of(x, chosen, penalty="squared_hinge", margin=margin)[0]

        return {"": np.sum(oracles.slope(loss, x, STEP)[settings["average"]] ** 2)}

    value, (of_x, of_margin) = penalised(X, MARGIN)
    assert float(value) == pytest.approx(brute(X, MARGIN)[""], rel=1e-4)
    expected = oracles.slope(lambda x: brute(x, MARGIN), X, STEP)[""]
    np.testing.assert_allclose(of_x, expected, rtol=2e-3, atol=1e-4)
    expected = oracles.slope(lambda m: brute(X, m[0]), np.array([MARGIN]), STEP)[""][0]
    assert float(of_margin) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("miner", ["semi_hard", pytest.param("batch_all", marks=SLOW)])
def test_one_sweep_has_first_derivatives_in_forward_mode(miner):
    loss = functools.partial(triplet, derivatives="first", miner=miner, penalty="margin_based")

    @jax.jit
    def ways(x, v, margin):
        _, slope = jax.jvp(lambda x, m: loss(x, margin=m), (x, margin), (v, jnp.float32(2)))
        _, linear = jax.linearize(loss, x)
        return slope, linear(v), jax.jacfwd(loss)(x), jax.jacrev(loss)(x)

    chosen = oracles.mine(X, LABELS, miner)

    def brute(x, margin=MARGIN):
        return oracles.loss_of(x, chosen, penalty="margin_based", margin=margin)[0]

    gradient = oracles.slope(brute, X)["valid"]
    of_margin = oracles.slope(lambda m: brute(X, m[0]), np.array([MARGIN]))["valid"][0]
    slope, linear, forward, reverse = ways(X, V, jnp.float32(MARGIN))
    assert float(slope) == pytest.approx(np.vdot(gradient, V) + 2 * of_margin, rel=1e-4)
    assert float(linear) == pytest.approx(np.vdot(gradient, V), rel=1e-4, abs=1e-5)
    for found in (forward, reverse):
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-5)


def penalty_of(number):
    return lambda d_ap, d_an, margin: jax.nn.softplus(number * (d_ap - d_an))


AGAIN = {
    "hessian": lambda loss: jax.hessian(loss)(X),
    "reverse over reverse": lambda loss: jax.jacrev(jax.jacrev(loss))(X),
    "reverse over forward": lambda loss: jax.jacrev(jax.jacfwd(loss))(X),
    "forward over forward": lambda loss: jax.jacfwd(jax.jacfwd(loss))(X),
    "gradient penalty": lambda loss: jax.grad(lambda x: jnp.sum(jax.grad(loss)(x) ** 2))(X),
    "within jit": lambda loss: jax.jit(jax.grad(lambda x: jax.jit(jax.grad(loss))(x)[0, 0]))(X),
    "of many": lambda loss: jax.vmap(jax.hessian(loss))(X[None]),
    "in the margin": lambda loss: jax.grad(
        lambda m: jax.grad(functools.partial(loss, margin=m))(X)[0, 0]
    )(MARGIN),
    "in a number that is closed over": lambda loss: jax.grad(
        lambda c: jax.grad(functools.partial(loss, penalty=penalty_of(c)))(X)[0, 0]
    )(2.0),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_a_second_derivative_of_one_sweep_is_refused(again):
    for miner in ("semi_hard", "batch_all"):
        loss = functools.partial(triplet, derivatives="first", miner=miner)
        with pytest.raises(errors.InputError, match="Pass derivatives='all'"):
            jax.eval_shape(lambda loss=loss: again(loss))


def test_a_second_derivative_of_a_contrastive_loss_is_refused():
    with pytest.raises(errors.InputError, match="Pass derivatives='all'"):
        jax.eval_shape(lambda: jax.hessian(functools.partial(whole, derivatives="first"))(X))


def test_other_orders_are_refused():
    for loss in (triplet, whole):
        with pytest.raises(errors.InputError, match="derivatives='second' is not known"):
            loss(jnp.asarray(X), derivatives="second")


@pytest.mark.slow
def test_gradients_of_a_batch_of_batches():
    both = jnp.stack([X, V])
    for derivatives in ("first", "all"):
        loss = functools.partial(triplet, derivatives=derivatives)
        found = jax.jit(jax.vmap(jax.grad(loss)))(both)
        expected = jnp.stack([jax.jit(jax.grad(loss))(x) for x in both])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
