"""Values of all pairs of rows `a` and columns `b` by one matrix product, in any precision."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.xla import products
from triplet_jax.xla.products import Precision

Rows = Float[Array, "m dim"]
Columns = Float[Array, "dim n"]
Values = Float[Array, "m n"]


def squared_differences(a: Rows, b: Columns, precision: Precision = products.FULL) -> Values:
    """`|a - b|^2`. In a lower precision it is that of rounded rows, so that equal ones stay so."""
    a, b = precision.rounded(a), precision.rounded(b)
    # Doubled before the product, which saves a matrix.
    values = _outer_sum(*_squares(a, b)) + precision.product(-2.0 * a, b)
    return precision.with_rounded_slopes(values)


def one_minus_products(a: Rows, b: Columns, precision: Precision = products.FULL) -> Values:
    """`1 - a.b`."""
    a, b = precision.rounded(a), precision.rounded(b)
    # Negated before the product: otherwise the gradient negates a whole matrix.
    return precision.with_rounded_slopes(1.0 + precision.product(-a, b))


def one_minus_cosines(a: Rows, b: Columns, precision: Precision = products.FULL) -> Values:
    """`1 - a.b` of rows of length 1, and 1 for a row of zeros."""
    if precision is products.FULL:
        return one_minus_products(a, b)
    # Rounded vectors have no length of 1, and without their own squares equal ones come apart.
    a, b = precision.rounded(a), precision.rounded(b)
    of_a, of_b = (jnp.where(x == 0, 1.0, x) for x in _squares(a, b))
    values = 0.5 * _outer_sum(of_a, of_b) + precision.product(-a, b)
    return precision.with_rounded_slopes(values)


def _squares(a, b):
    return jnp.sum(a * a, axis=1, keepdims=True), jnp.sum(b * b, axis=0, keepdims=True)


def _outer_sum(of_a, of_b):
    # Products with ones instead of broadcasts: the gradient of a broadcast sums a whole matrix,
    # which takes several times as long on a CPU.
    left = products.product(of_a, jnp.ones_like(of_b))
    return left + products.product(jnp.ones_like(of_a), of_b)
