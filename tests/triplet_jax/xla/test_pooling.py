"""Pooling beside comparisons that jax differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.xla import extremes, pooling


def by_comparisons(x):
    rows = extremes.larger(x[:, 0::2], x[:, 1::2])
    return extremes.larger(rows[:, :, 0::2], rows[:, :, 1::2])


def value_and_gradient(pool, x):
    return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(pool(x)) + pool(x)), 0))(x)


@pytest.mark.parametrize("kinds", [2, 3, 1000])
def test_equal_values_share_the_gradient(kinds):
    # Of two kinds of values, each pattern of equal ones in a window is among these.
    x = np.random.default_rng(0).integers(0, kinds, (2, 20, 12, 5)).astype(np.float32)
    ours, theirs = (value_and_gradient(pool, x) for pool in (pooling.max_2x2, by_comparisons))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_not_a_number_wins():
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype(np.float32)
    x[0, 1, 0] = np.nan
    found = pooling.max_2x2(jnp.asarray(x))
    np.testing.assert_array_equal(np.isnan(found[..., 0]), [[[True, False], [False, False]]])


def test_the_lowest_of_some_channels():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    lowest = np.array([False, True, False])
    sign = np.where(lowest, -1, 1).astype(np.float32)
    ours = value_and_gradient(lambda x: pooling.max_2x2(x, lowest), x)
    theirs = value_and_gradient(lambda x: sign * by_comparisons(sign * x), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.slow
def test_several_encoders_at_once():
    x = np.random.default_rng(0).normal(size=(3, 2, 4, 4, 5)).astype(np.float32)
    ours, theirs = (
        jax.vmap(jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x)))))(x)
        for pool in (pooling.max_2x2, by_comparisons)
    )
    np.testing.assert_array_equal(ours, theirs)
