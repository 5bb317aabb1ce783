#!/usr/bin/env bash
# The gradient of a maximum is wrong, or NaN, under jit on a CPU.
#
# One would expect: `jax.jit(jax.grad(f))` gives the gradient of `jax.grad(f)`, up to rounding, for an
# f with `jnp.max` in it: here batch normalisation followed by 2 x 2 max pooling as a reshape and a
# maximum, a common form.
#
# What happens (jax 0.10.2, CPU): with 20 x 20 and 28 x 28 images the compiled gradient is off by a
# quarter of its largest value; with other shapes it is NaN. jax sends the gradient of a maximum to
# the elements that equal the result. XLA computes the normalised values in one loop for the maximum,
# and again in another for the comparison; LLVM contracts a product and a sum to one instruction in
# one loop and not in the other, so that the two differ in the last bit. Then no element equals the
# maximum: the gradient is lost, or divided by a count of 0. Sizes for which the mean is a product
# with a power of two, which is exact, can be spared.
#
# `jnp.maximum` compares in the same way, and lost its gradient on GPUs: jax issue 40564
# (https://github.com/jax-ml/jax/issues/40564). A `where` that compares the operands with each other
# is right, and so is `jax.lax.reduce_window`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 numpy
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np


def normalise(x):
    mean = x.mean(axis=(0, 1, 2))
    variance = (x * x).mean(axis=(0, 1, 2)) - mean * mean
    return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * 1.1) + 0.2


def by_reshape(x):
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def by_where(x):
    larger = lambda a, b: jnp.where(a > b, a, b)
    rows = larger(x[:, 0::2], x[:, 1::2])
    return larger(rows[:, :, 0::2], rows[:, :, 1::2])


def off(pool, x):
    """The largest difference of the compiled gradient from the one without jit, as a share."""
    gradient = jax.grad(lambda x: jnp.sum(pool(normalise(x)) ** 2))
    plain = np.asarray(gradient(x))
    return np.abs(np.asarray(jax.jit(gradient)(x)) - plain).max() / np.abs(plain).max()


surprises = 0
print("jax", jax.__version__)
for size in (20, 28):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 8))
    reshape, where = off(by_reshape, x), off(by_where, x)
    print(f"{size} x {size}: jnp.max over reshaped axes off by {reshape:.2g}, where by {where:.2g}")
    surprises += reshape > 0.01 and where < 1e-4
sys.exit(0 if surprises else "the behaviour has changed: jnp.max is as right as where")
PYTHON
