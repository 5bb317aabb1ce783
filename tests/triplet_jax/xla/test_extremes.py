"""Gradients of maxima after a normalisation that XLA computes more than once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import models
from triplet_jax.xla import extremes


def normalise(x, axes):
    mean = x.mean(axis=axes, keepdims=True)
    variance = (x * x).mean(axis=axes, keepdims=True) - mean * mean
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * 1.1) + 0.2


def slope_of_windows(x, axes):
    """The gradient of the sum of squared maxima of 2 x 2 windows, by numpy in float64."""
    x = np.asarray(x, np.float64)
    n = np.prod([x.shape[axis] for axis in axes])
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True) + 1e-6
    unit = (x - mean) / np.sqrt(variance)
    y = 1.1 * unit + 0.2
    batch, height, width, channels = y.shape
    windows = y.reshape(batch, height // 2, 2, width // 2, 2, channels)
    slope = 2 * y * (windows == windows.max(axis=(2, 4), keepdims=True)).reshape(y.shape)
    total = slope.sum(axis=axes, keepdims=True)
    along = (slope * unit).sum(axis=axes, keepdims=True)
    return 1.1 / np.sqrt(variance) * (slope - total / n - unit * along / n)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2)])
@pytest.mark.parametrize("size", [20, 28, 40])
def test_the_gradient_of_max_pooling_is_that_of_its_definition(size, axes):
    x = jax.random.normal(jax.random.key(size), (2, size, size, 8))

    def total(x):
        return jnp.sum(models.max_pool_2x2(normalise(x, axes)) ** 2)

    found = jax.jit(jax.grad(total))(x)
    np.testing.assert_allclose(found, slope_of_windows(x, axes), rtol=1e-3, atol=2e-4)


def test_equal_numbers_share_the_gradient_and_nan_is_not_hidden():
    a, b = jnp.array([1.0, 2.0, 3.0, jnp.nan, 1.0]), jnp.array([2.0, 2.0, 1.0, 1.0, jnp.nan])
    for function, expected, shares in (
        (extremes.larger, np.maximum(a, b), [0, 0.5, 1]),
        (extremes.smaller, np.minimum(a, b), [1, 0.5, 0]),
    ):
        np.testing.assert_array_equal(function(a, b), expected)
        of_a, of_b = jax.grad(lambda a, b, f=function: f(a, b)[:3].sum(), (0, 1))(a, b)
        np.testing.assert_allclose(of_a[:3], shares)
        np.testing.assert_allclose(of_b[:3], 1 - np.array(shares))


def test_max_pooling_can_be_differentiated_forwards():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    _, slope = jax.jvp(models.max_pool_2x2, (x,), (x,))
    np.testing.assert_allclose(slope, models.max_pool_2x2(x), rtol=1e-6)
