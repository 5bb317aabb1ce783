"""Dropout and pooling against what defines them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, models
from triplet_jax.models import layers


def test_dropout_keeps_the_mean(key):
    kept = models.drop(jnp.ones((100, 200)), jax.random.split(key, 100), 0.2)
    np.testing.assert_allclose(jnp.unique(kept), [0, 1.25])
    assert float(kept.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "shape", [pytest.param((1, 4, 4, 2), marks=pytest.mark.slow), (2, 5, 7, 3), (1, 2, 2, 1)]
)
def test_max_pool_is_that_of_windows(shape, key):
    x = jax.random.normal(key, shape)
    window = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    np.testing.assert_array_equal(models.max_pool_2x2(x), window)


@pytest.mark.parametrize("size", [pytest.param((4, 4), marks=pytest.mark.slow), (5, 8), (1, 2)])
def test_overlapping_max_pool_and_its_gradient_are_those_of_windows(size, key):
    x = jax.random.normal(key, (2, *size, 3))

    def windows(x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
        return nn.max_pool(padded, window_shape=(3, 3), strides=(2, 2))

    np.testing.assert_array_equal(layers.max_pool_3x3(x), windows(x))
    ours, theirs = (
        jax.grad(lambda x, f=f: jnp.sum(f(x) ** 2))(x) for f in (layers.max_pool_3x3, windows)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_other_backends_take_the_maximum_of_windows_themselves(key, monkeypatch):
    x = jax.random.normal(key, (2, 5, 8, 3))
    on_cpu = jax.jit(lambda x: layers.max_pool_3x3(x))(x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = jax.jit(lambda x: layers.max_pool_3x3(x)).trace(x)
    assert "reduce_window" in str(elsewhere.jaxpr)
    np.testing.assert_array_equal(elsewhere.lower().compile()(x), on_cpu)


def test_stochastic_depth_skips_whole_rows_and_keeps_the_mean(key):
    keys = jax.random.split(key, 4000)
    x = jnp.ones((4000, 2, 3))
    kept = models.skip(x, keys, 0.2, block=0)
    np.testing.assert_array_equal(kept, kept[:, :1, :1] * x)
    np.testing.assert_allclose(jnp.unique(kept), [0, 1.25])
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)


def test_stochastic_depth_draws_for_each_block_and_each_row_by_itself(key):
    keys, x = jax.random.split(key, 50), jnp.ones((50, 2))
    first, second = (models.skip(x, keys, 0.5, block=block) for block in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(models.skip(x, keys[::-1], 0.5, block=0), first[::-1])
    np.testing.assert_array_equal(models.skip(x, None, 0.0, block=0), x)
    with pytest.raises(errors.InputError, match="pass one key for each row"):
        models.skip(x, None, 0.5, block=0)


@pytest.mark.parametrize("norm", models.NORMS)
def test_normalisation_in_half_precision_keeps_statistics_and_parameters_whole(norm, key):
    x = 100 + jax.random.normal(key, (64, 4, 4, 8))
    layer = models.make_norm(norm, train=True, axis_name=None, dtype=jnp.bfloat16)()
    y, variables = layer.init_with_output(key, x)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    expected = models.make_norm(norm, train=True, axis_name=None)().apply(
        variables, x, mutable=True
    )
    np.testing.assert_allclose(y.astype(jnp.float32), expected[0], rtol=0.01, atol=0.01)
