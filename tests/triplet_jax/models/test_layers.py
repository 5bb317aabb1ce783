"""Dropout and pooling against what defines them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import models


def test_dropout_keeps_the_mean(key):
    kept = models.drop(jnp.ones((100, 200)), jax.random.split(key, 100), 0.2)
    np.testing.assert_allclose(jnp.unique(kept), [0, 1.25])
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(1, 4, 4, 2), (2, 5, 7, 3), (1, 2, 2, 1)])
def test_max_pool_is_that_of_windows(shape, key):
    x = jax.random.normal(key, shape)
    window = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(models.max_pool_2x2(x), window)
