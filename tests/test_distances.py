import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracles
from triplet_jax import distances, errors

vectors = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.just(3)),
    elements=st.floats(-4, 4, width=32).map(lambda x: round(x, 2)),
)


@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@hypothesis.given(a=vectors, b=vectors)
def test_agrees_with_the_definition(metric, a, b):
    found = distances.pairwise(jnp.asarray(a), jnp.asarray(b), metric)
    # The error of a Gram matrix is relative to the squared lengths, not to the distance.
    atol = 4e-3 if metric == "euclidean" else 2e-5
    np.testing.assert_allclose(found, oracles.pairwise(a, b, metric), atol=atol, rtol=1e-5)


@pytest.mark.parametrize("metric", sorted(distances.METRICS))
def test_gradient_agrees_with_finite_differences(metric, key):
    a, b = jax.random.normal(key, (2, 5, 4))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (5, 5))

    def total(a):
        return jnp.sum(weights * distances.pairwise(a, b, metric))

    gradient = np.asarray(jax.grad(total)(a))
    a = np.asarray(a, np.float64)
    for i, j in np.ndindex(5, 4):
        step = np.zeros((5, 4))
        step[i, j] = 1e-5
        above = (np.asarray(weights) * oracles.pairwise(a + step, b, metric)).sum()
        below = (np.asarray(weights) * oracles.pairwise(a - step, b, metric)).sum()
        assert gradient[i, j] == pytest.approx((above - below) / 2e-5, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("metric", sorted(distances.METRICS))
@pytest.mark.parametrize("value", [0.0, 1.0, 1e-20, 1e4])
def test_gradient_is_finite_between_equal_vectors(metric, value):
    x = jnp.full((3, 4), value)
    gradient = jax.grad(lambda x: distances.pairwise(x, x, metric).sum())(x)
    assert np.isfinite(gradient).all()


def test_euclidean_has_no_gradient_between_equal_vectors():
    x = jnp.ones((2, 3))
    assert np.array_equal(jax.grad(lambda x: distances.euclidean(x, x).sum())(x), np.zeros((2, 3)))


def test_unknown_metric_suggests_the_nearest():
    with pytest.raises(
        errors.InputError, match="'euclidian' is not known.*Did you mean 'euclidean'"
    ):
        distances.pairwise(jnp.ones((1, 1)), jnp.ones((1, 1)), "euclidian")
