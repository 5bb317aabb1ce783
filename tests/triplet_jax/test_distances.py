import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import oracles
from triplet_jax import distances, errors

PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.7]])
CASES = [
    (name, {}) for name in sorted(distances.METRICS) if name not in ("mahalanobis", "minkowski")
]
CASES += [("minkowski", {"p": p}) for p in (1.0, 1.5, 2.0, 3.0)]
CASES += [("mahalanobis", {"precision": jnp.float32(PRECISION)})]
each_metric = pytest.mark.parametrize(("metric", "params"), CASES)

# Few sizes, as every one is compiled anew.
vectors = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([1, 5]), st.just(3)),
    elements=st.floats(-4, 4, width=32).map(lambda x: round(x, 2)),
)


# Compiled: op by op it is slow. `triplet_jax.distances` has examples that are not.
pairwise = jax.jit(distances.pairwise, static_argnames=("metric", "p"))


def suited(x, metric):
    return np.abs(x) if metric == "jaccard" else x


@each_metric
@hypothesis.given(a=vectors, b=vectors)
def test_agrees_with_the_definition(metric, params, a, b):
    a, b = suited(a, metric), suited(b, metric)
    found = pairwise(jnp.asarray(a), jnp.asarray(b), metric, **params)
    # The error of a Gram matrix is relative to the squared lengths, not to the distance.
    atol = 4e-3 if metric in ("euclidean", "mahalanobis") else 2e-5
    np.testing.assert_allclose(
        found, oracles.pairwise(a, b, metric, **params), atol=atol, rtol=1e-5
    )


@pytest.mark.parametrize("dim", [2, 3, 17, 64, 300])
def test_a_cosine_distance_stays_in_its_range(dim):
    x = np.random.default_rng(dim).normal(size=(64, dim)).astype(np.float32)
    same = pairwise(jnp.asarray(x), jnp.asarray(x), "cosine")
    opposite = pairwise(jnp.asarray(x), jnp.asarray(-x), "cosine")
    assert np.min(same) >= 0 and np.max(opposite) <= 2
    np.testing.assert_allclose(np.diag(same), 0, atol=2e-6)

    def total(x):  # the slope is not cut where rounding leaves the range
        return jnp.sum(jnp.diag(pairwise(x, jnp.asarray(near), "cosine")))

    near = np.float32(x + 1e-4)
    wide = np.float64(x)
    slope = jax.grad(total)(jnp.asarray(x))
    expected = oracles.slope(
        lambda some: {"sum": np.trace(oracles.pairwise(some, near, "cosine"))}, wide[:2]
    )
    np.testing.assert_allclose(slope[:2], expected["sum"], atol=2e-6)


@each_metric
@pytest.mark.parametrize("apart", [1e-4, 1e-2, 1.0])
def test_between_keeps_its_digits_among_near_duplicates(metric, params, apart):
    rng = np.random.default_rng(0)
    centre = rng.normal(size=3)
    a, b = (np.float32(suited(centre + apart * rng.normal(size=(6, 3)), metric)) for _ in range(2))
    made = distances.make(metric, **params)
    x, y = distances.prepared(made, jnp.asarray(a), jnp.asarray(b))
    found = np.array(made.finish(made.between(x, y)))
    # Preparation, such as division by a length, rounds each vector.
    atol = 2e-7 if metric in ("mahalanobis", "jaccard") else 0
    rtol = 1e-2 if metric == "cosine" and apart == 1e-4 else 1e-3
    np.testing.assert_allclose(
        found, np.diag(oracles.pairwise(a, b, metric, **params)), rtol=rtol, atol=atol
    )
    if metric != "dot":  # which is no distance
        assert np.all(made.finish(made.between(x, x)) == 0)


@each_metric
def test_gradient_agrees_with_finite_differences(metric, params, key):
    a, b = suited(np.array(jax.random.normal(key, (2, 5, 3))), metric)
    weights = np.array(jax.random.normal(jax.random.fold_in(key, 1), (5, 5)))

    def total(a):
        return jnp.sum(weights * pairwise(a, jnp.asarray(b), metric, **params))

    gradient = jax.grad(total)(jnp.asarray(a))
    expected = oracles.slope(
        lambda a: {"total": (weights * oracles.pairwise(a, b, metric, **params)).sum()}, a
    )["total"]
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


@each_metric
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e4])
def test_gradient_is_finite_between_equal_vectors(metric, params, value):
    x = jnp.full((3, 3), value)
    found, gradient = jax.value_and_grad(lambda x: pairwise(x, x, metric, **params).sum())(x)
    assert np.isfinite(found)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean", "manhattan", "jaccard"])
def test_there_is_no_gradient_between_equal_vectors(metric):
    made = distances.make(metric)
    x = jnp.array([[0.0, 1.0, 3.0]])
    slope = jax.grad(lambda x: made.finish(made.between(x, jnp.array([[0.0, 1.0, 3.0]]))).sum())(x)
    if metric == "jaccard":  # a change in either direction takes from what is shared
        assert np.isfinite(slope).all()
    else:
        assert not np.any(slope)


@pytest.mark.parametrize("metric", ["minkowski", "manhattan"])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_no_power_overflows(metric, scale):
    params = {"p": 3.0} if metric == "minkowski" else {}
    a, b = np.random.default_rng(0).normal(size=(2, 4, 3))
    found, gradient = jax.value_and_grad(
        lambda a: pairwise(a, jnp.float32(scale * b), metric, **params).sum()
    )(jnp.float32(scale * a))
    assert float(found) == pytest.approx(
        scale * oracles.pairwise(a, b, metric, **params).sum(), rel=1e-4
    )
    assert np.isfinite(gradient).all()


def test_special_cases_of_a_family_are_what_they_are_called():
    a, b = (jnp.abs(x) for x in jax.random.normal(jax.random.key(0), (2, 6, 3)))
    close = lambda *x: np.testing.assert_allclose(*x, rtol=2e-4)  # noqa: E731
    close(pairwise(a, b, "minkowski", p=1.0), pairwise(a, b, "manhattan"))
    close(pairwise(a, b, "minkowski", p=2.0), pairwise(a, b))
    close(pairwise(a, b, "mahalanobis", precision=jnp.eye(3)), pairwise(a, b))
    # Of sets, Jaccard is one minus intersection over union.
    sets = jnp.array([[1.0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    close(pairwise(sets, sets, "jaccard"), [[0, 2 / 3, 1], [2 / 3, 0, 1], [1, 1, 0]])


@each_metric
def test_what_is_not_a_number_is_at_no_distance(metric, params):
    x = jnp.ones((3, 3)).at[1, 2].set(jnp.nan)
    made = distances.make(metric, **params)
    alone = made.finish(made.between(*(made.prepare(x[i : i + 1]) for i in (0, 1))))
    assert np.isnan(alone).all()
    assert np.isnan(pairwise(x, x, metric, **params)[0, 1])


def test_unknown_metric_suggests_the_nearest():
    with pytest.raises(
        errors.InputError, match="'euclidian' is not known.*Did you mean 'euclidean'"
    ):
        distances.pairwise(jnp.ones((1, 1)), jnp.ones((1, 1)), "euclidian")


@pytest.mark.parametrize(
    ("metric", "params", "message"),
    [
        ("minkowski", {}, "takes p, and was given no parameters"),
        ("minkowski", {"p": 0.9}, "p=0.9 must be at least 1"),
        ("minkowski", {"p": float("inf")}, "p=inf must be at least 1 and finite"),
        ("minkowski", {"p": float("nan")}, "p=nan"),
        ("minkowski", {"p": 2.0, "q": 1.0}, "takes p, and was given p, q"),
        ("mahalanobis", {}, "takes precision"),
        ("euclidean", {"p": 2.0}, "takes no parameters, and was given p"),
    ],
)
def test_parameters_that_are_not_the_metrics_are_refused(metric, params, message):
    with pytest.raises(errors.InputError, match=message):
        distances.make(metric, **params)
    with pytest.raises(errors.InputError, match=message):
        distances.pairwise(jnp.ones((1, 1)), jnp.ones((1, 1)), metric, **params)


def test_signal_to_noise_of_rows_without_variance():
    a = jnp.array([[0.1] * 5, [1e4] * 5, [0.0, 1.0, 2.0, 3.0, 4.0]])

    @jax.jit
    def slope(a):
        found = distances.pairwise(a, a, "signal_to_noise")
        return jnp.sum(found), found

    gradient, found = jax.grad(slope, has_aux=True)(a)
    np.testing.assert_allclose(found, [[0, 0, 2], [0, 0, 2], [1, 1, 0]], atol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "mahalanobis"])
def test_accelerators_are_asked_for_full_float32(metric):
    params = {"precision": jnp.eye(3)} if metric == "mahalanobis" else {}
    measure = functools.partial(distances.pairwise, metric=metric, **params)
    program = jax.make_jaxpr(measure)(jnp.ones((2, 3)), jnp.ones((4, 3)))
    text = str(program)
    assert text.count("dot_general[") == text.count("precision=(Precision.HIGHEST") > 0


def test_a_power_that_is_given_as_an_array_is_checked_too():
    with pytest.raises(errors.InputError, match="must be at least 1"):
        distances.pairwise(np.eye(2), np.eye(2), "minkowski", p=jnp.float32(0.5))
