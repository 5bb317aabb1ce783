"""Products in a lower precision, against float64 of numbers that numpy rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import rounding
from triplet_jax.xla import products

LOWER = [name for name in products.PRECISIONS if name != "float32"]
A, B, G = (
    np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for seed, shape in enumerate([(5, 40), (40, 7), (5, 7)])
)


def value(precision, a, b):
    found = precision.product(precision.rounded(a), precision.rounded(b))
    return precision.with_rounded_slopes(found)


def value_and_slopes(name):
    def run(a, b):
        found, pull = jax.vjp(lambda a, b: value(products.PRECISIONS[name], a, b), a, b)
        return found, *pull(G)

    return jax.jit(run)(A, B)


@pytest.mark.parametrize("name", LOWER)
def test_rounded_numbers_are_multiplied_and_their_products_added_up_in_float32(name):
    found, of_a, of_b = value_and_slopes(name)
    a, b, g = (rounding.rounded(x, name) for x in (A, B, G))
    # Ten times nearer than the product of numbers that are not rounded.
    np.testing.assert_allclose(found, a @ b, atol=2e-5)
    np.testing.assert_allclose(of_a, g @ b.T, atol=2e-5)
    np.testing.assert_allclose(of_b, a.T @ g, atol=2e-5)
    assert np.abs(np.float64(A) @ np.float64(B) - a @ b).max() > 2e-4
    assert found.dtype == of_a.dtype == of_b.dtype == jnp.float32


def test_full_precision_leaves_numbers_as_they_are():
    found, of_a, of_b = value_and_slopes("float32")
    np.testing.assert_allclose(found, np.float64(A) @ B, atol=2e-5)
    np.testing.assert_allclose(of_a, np.float64(G) @ B.T, atol=2e-5)
    np.testing.assert_allclose(of_b, np.float64(A).T @ G, atol=2e-5)


@pytest.mark.parametrize("name", LOWER)
def test_derivatives_of_any_order_in_either_mode(name):
    precision = products.PRECISIONS[name]

    def squares(row):
        return jnp.sum(value(precision, row[None], jnp.asarray(B)) ** 2)

    by_forward, by_reverse = jax.jit(
        lambda row: (jax.hessian(squares)(row), jax.jacrev(jax.jacrev(squares))(row))
    )(A[0])
    b = rounding.rounded(B, name)
    for found in (by_forward, by_reverse):
        np.testing.assert_allclose(found, 2 * b @ b.T, rtol=0.02, atol=0.1)


@pytest.mark.parametrize(("name", "algorithm"), [("tf32", "tf32"), ("bfloat16", "bf16")])
def test_a_gpu_is_asked_for_its_units_of_this_type(name, algorithm, monkeypatch):
    # Only the program is made: there need be no GPU.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    precision = products.PRECISIONS[name]
    slopes = jax.grad(lambda a, b: value(precision, a, b).sum(), (0, 1))
    text = jax.jit(slopes).trace(A, B).lower(lowering_platforms=("cuda",)).as_text()
    used = [line for line in text.splitlines() if "dot_general" in line]
    assert len(used) >= 2 and all(
        algorithm in line and "accumulation_type = f32" in line for line in used
    )
