"""The depthwise convolution beside that of XLA, in value and in gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.xla import convolution, depthwise

FORM = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def value_and_gradients(convolve, channels, strides, padding):
    def value(x, kernel):
        y = convolve(x, kernel, strides, padding, feature_group_count=channels, **FORM)
        return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))


def inputs(size, window, channels=3, dtype=np.float32, runs=()):
    random = np.random.default_rng(0)
    x = random.normal(size=(*runs, 2, *size, channels))
    kernel = random.normal(size=(*runs, window, window, 1, channels))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


# Sizes of one block of rows and of several, of a whole number of them and not.
GRID = [
    ((8, 9), 3, (1, 1), "SAME"),
    ((9, 8), 3, (2, 2), "SAME"),
    ((19, 4), 5, (1, 1), [(2, 2), (2, 2)]),
    ((10, 10), 5, (2, 2), [(2, 2), (2, 2)]),
    ((10, 11), 5, (2, 2), "SAME"),
    ((7, 7), 7, (1, 1), [(3, 3), (3, 3)]),
    ((2, 3), 7, (1, 1), "SAME"),
    ((9, 7), 3, (2, 1), "VALID"),
    ((6, 6), 3, (3, 2), [(0, 2), (1, 0)]),
]


@pytest.mark.parametrize(("size", "window", "strides", "padding"), GRID)
def test_value_and_gradients_are_those_of_lax_in_groups(size, window, strides, padding):
    with jax.enable_x64(True):
        x, kernel = inputs(size, window, dtype=np.float64)
        ours = value_and_gradients(convolution.convolve, 3, strides, padding)(x, kernel)
        theirs = value_and_gradients(jax.lax.conv_general_dilated, 3, strides, padding)(x, kernel)
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
        jax.tree.map(compare, ours, theirs)


def test_positions_that_are_compiled_apart_give_the_same_gradient(monkeypatch):
    monkeypatch.setattr(depthwise, "_LARGE", 0)
    x, kernel = inputs((12, 10), 5)  # of a size that nothing else has compiled
    apart, expected = (
        value_and_gradients(convolve, 3, (2, 2), "SAME")(x, kernel)
        for convolve in (convolution.convolve, jax.lax.conv_general_dilated)
    )
    compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(compare, apart, expected)


def test_half_precision_sums_in_float32():
    x, kernel = inputs((12, 12), 5, dtype=jnp.bfloat16)
    wide = x.astype(jnp.float32), kernel.astype(jnp.float32)
    run = value_and_gradients(convolution.convolve, 3, (1, 1), "SAME")
    (_, half), gradients = run(x, kernel)
    (_, full), expected = run(*wide)
    assert half.dtype == gradients[0].dtype == gradients[1].dtype == jnp.bfloat16
    # Half a unit in the last of eight binary digits, once.
    np.testing.assert_allclose(half.astype(np.float32), full, rtol=2**-8)
    for got, wanted in zip(gradients, expected, strict=True):
        error = jnp.linalg.norm((got.astype(jnp.float32) - wanted).ravel())
        assert error < 0.02 * jnp.linalg.norm(wanted.ravel())


def test_runs_that_are_batched_have_a_kernel_each():
    x, kernel = inputs((5, 5), 3, dtype=np.float32, runs=(2,))
    run = value_and_gradients(convolution.convolve, 3, (2, 2), "SAME")
    together = jax.vmap(run)(x, kernel)
    alone = [run(x[i], kernel[i]) for i in range(2)]
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5),
            together,
            alone[i],
        )


@pytest.mark.parametrize("rest", [{}, {"rhs_dilation": (2, 2)}])
def test_no_groups_are_left_to_xla_on_a_cpu_but_those_with_holes(rest):
    def convolve(x, kernel):
        return convolution.convolve(
            x, kernel, (1, 1), "SAME", feature_group_count=3, **FORM, **rest
        ).sum()

    text = jax.jit(jax.grad(convolve, argnums=(0, 1))).lower(*inputs((5, 5), 3)).as_text()
    assert ("convolution" in text) == bool(rest)
