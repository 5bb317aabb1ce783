"""Batch normalisation beside flax's, whose values, statistics and gradients it has."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.models import batch_norm, layers
from triplet_jax.xla import extremes

SHAPE = (6, 5, 4, 3)


def of_flax(train, axis_name=None):
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        use_fast_variance=False,
        axis_name=axis_name,
    )


def variables(dtype=None):
    """Of three channels; one has a negative scale."""
    scale, bias, mean = (np.array(x, dtype) for x in ([1.5, -0.5, 2], [0.1, 0, -1], [0.3, -0.2, 0]))
    return {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": np.abs(scale)},
    }


def results(norm, given, x, *pool):
    """The outputs, the new statistics and all gradients."""

    def value(params, x):
        y, after = norm.apply(given | {"params": params}, x, *pool, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, after)

    grad = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    return jax.jit(grad)(given["params"], x)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (16, 3), (7, 3)])
def test_float64_shows_no_other_difference_from_flax_than_rounding(train, shape):
    with jax.enable_x64():
        x = np.random.default_rng(0).normal(3, 2, shape)
        given = variables(np.float64)
        norm = batch_norm.BatchNorm(use_running_average=not train)
        ours, theirs = results(norm, given, x), results(of_flax(train), given, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {np.dtype("float64")}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), ours, theirs)


@pytest.mark.parametrize("size", [4, 5])
def test_pooling_before_normalising_is_pooling_after_it(size):
    with jax.enable_x64():
        x = np.random.default_rng(0).normal(size=(6, size, size, 3))
        given = variables(np.float64)
        norm = batch_norm.BatchNorm(use_running_average=False)

        class After(nn.Module):
            @nn.compact
            def __call__(self, x):
                y = norm.copy(name="norm")(x)[:, :4, :4]
                rows = extremes.larger(y[:, 0::2], y[:, 1::2])
                return extremes.larger(rows[:, :, 0::2], rows[:, :, 1::2])

        nested = {kind: {"norm": tree} for kind, tree in given.items()}
        ours = results(norm, given, x, layers.max_pool_2x2)
        theirs = results(After(), nested, x)
        theirs = jax.tree.unflatten(jax.tree.structure(ours), jax.tree.leaves(theirs))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), ours, theirs)


def test_devices_together_have_the_gradients_of_one(key):
    x = jax.random.normal(key, (4, *SHAPE))
    given = variables(np.float32)
    norm = batch_norm.BatchNorm(use_running_average=False, axis_name="devices")

    def of_device(x):
        def value(params, x):
            y, after = norm.apply(given | {"params": params}, x, mutable=["batch_stats"])
            return jax.lax.psum(jnp.sum(jnp.sin(y)), "devices"), after

        (_, after), (of_params, of_x) = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(
            given["params"], x
        )
        return after, jax.lax.pmean(of_params, "devices"), of_x

    after, of_params, of_x = jax.pmap(of_device, axis_name="devices")(x)
    alone = batch_norm.BatchNorm(use_running_average=False)
    (_, (_, expected)), (params, inputs) = results(alone, given, x.reshape(-1, *SHAPE[1:]))
    devices = len(x)
    for found, once in ((after, expected), (of_params, params)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=2e-4), found, once)
    # Each device differentiates the sum over all of them, as many times as there are devices.
    np.testing.assert_allclose(of_x.reshape(inputs.shape) / devices, inputs, rtol=1e-3, atol=1e-6)


def test_other_backends_sum_by_themselves(key, monkeypatch):
    x = jax.random.normal(key, SHAPE)
    on_cpu = jax.jit(lambda x: batch_norm._sums(x))(x)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere = jax.jit(lambda x: batch_norm._sums(x)).trace(x)
    assert "dot_general" not in str(elsewhere.jaxpr)
    np.testing.assert_allclose(elsewhere.lower().compile()(x), on_cpu, rtol=1e-5, atol=1e-5)
