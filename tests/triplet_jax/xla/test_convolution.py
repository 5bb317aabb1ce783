"""The convolution beside that of XLA, which it is but for rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax.xla import convolution

FORM = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def value_and_gradients(convolve, strides, padding):
    def value(x, kernel):
        y = convolve(x, kernel, strides, padding, **FORM)
        return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))


PADDINGS = ["SAME", "VALID", [(1, 1), (1, 1)], [(3, 0), (1, 2)]]
SIZES = [((2, 2), 3), ((2, 5), 3), ((7, 2), 3), ((1, 2), 3), ((1, 1), 3), ((3, 4), 5), ((4, 4), 1)]
GRID = [
    (size, window, strides, padding)
    for size, window in SIZES
    for strides in ((1, 1), (2, 2))
    for padding in PADDINGS
]


# Every size with every stride once, and every padding with every stride.
@pytest.mark.parametrize(
    ("size", "window", "strides", "padding"),
    cases.mostly_slow(GRID, [GRID[4 * i + (i + i // 4) % 4] for i in range(len(GRID) // 4)]),
)
def test_value_and_gradients_are_those_of_lax(size, window, strides, padding):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(3, *size, 2)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(window, window, 2, 4)), jnp.float32)
    if padding == "VALID" and min(size) < window:
        padding = [(window, 0), (0, window)]
    ours = value_and_gradients(convolution.convolve, strides, padding)(x, kernel)
    theirs = value_and_gradients(jax.lax.conv_general_dilated, strides, padding)(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(
    ("size", "window", "channels", "stride"),
    [(2, 3, 5, 1), (4, 3, 5, 2), (6, 3, 1, 1), (9, 5, 1, 2), (5, 3, 5, 2)],
)
def test_float64_shows_no_other_difference_than_rounding(size, window, channels, stride):
    random = np.random.default_rng(0)
    with jax.enable_x64():
        x = jnp.asarray(random.normal(size=(3, size, size, channels)))
        kernel = jnp.asarray(random.normal(size=(window, window, channels, 32)))
        strides, padding = (stride, stride), "SAME"
        ours = value_and_gradients(convolution.convolve, strides, padding)(x, kernel)
        theirs = value_and_gradients(jax.lax.conv_general_dilated, strides, padding)(x, kernel)
        assert ours[0][1].dtype == jnp.float64
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), ours, theirs
        )


def test_no_image_smaller_than_its_kernel_is_left_to_xla_on_a_cpu():
    x, kernel = jnp.ones((3, 2, 2, 8)), jnp.ones((3, 3, 8, 8))
    for image, stride in ((x, 1), (jnp.ones((3, 4, 4, 8)), 2)):
        run = value_and_gradients(convolution.convolve, (stride, stride), "SAME")
        assert " convolution(" not in run.lower(image, kernel).compile().as_text()
    plain = value_and_gradients(jax.lax.conv_general_dilated, (1, 1), "SAME")
    assert "rhs_reversal" in plain.lower(x, kernel).compile().as_text(), "is this still needed?"


def test_runs_that_are_batched_have_a_kernel_each():
    random = np.random.default_rng(1)
    x = jnp.asarray(random.normal(size=(4, 3, 2, 2, 2)), jnp.float32)
    kernels = jnp.asarray(random.normal(size=(4, 3, 3, 2, 5)), jnp.float32)
    run = value_and_gradients(convolution.convolve, (1, 1), "SAME")
    batched = jax.vmap(run)(x, kernels)
    for k in range(4):
        alone = run(x[k], kernels[k])
        jax.tree.map(
            lambda a, b, k=k: np.testing.assert_allclose(a[k], b, rtol=1e-4, atol=1e-5),
            batched,
            alone,
        )


def test_numbers_of_half_the_length_stay_so():
    x, kernel = jnp.ones((3, 2, 2, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 4), jnp.bfloat16)
    y = convolution.convolve(x, kernel, (1, 1), "SAME", **FORM)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.full((3, 2, 2, 4), 8))


def test_other_backends_convolve_as_they_do_themselves(monkeypatch):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 3, 3, 2)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(1, 1, 2, 4)), jnp.float32)

    def found():
        def convolve(x, kernel):
            return convolution.convolve(x, kernel, (2, 2), "SAME", products=True, **FORM)

        return convolve(x, kernel), "conv_general_dilated" in str(
            jax.make_jaxpr(convolve)(x, kernel)
        )

    on_cpu, convolves_on_cpu = found()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    elsewhere, convolves = found()
    np.testing.assert_allclose(elsewhere, on_cpu, rtol=1e-5, atol=1e-6)
    assert convolves and not convolves_on_cpu
