"""The larger and the smaller of two numbers, with gradients that survive compilation.

The gradient of `jnp.maximum` and of `jnp.max` goes to the operands that *equal* the result. XLA may
compute an operand once for the result and a second time for that comparison, and round the two in
different ways (a product and a sum may be one instruction or two). Then nothing is equal:
`jnp.maximum` loses the gradient, and `jnp.max` divides by a count of 0
(findings/jax_max_gradient.sh). Here the operands are compared with each other, so that the shares
of the gradient add up to 1 however the operands are rounded.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def larger(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`max(a, b)` by element. Equal elements share the gradient, and NaN gives NaN."""
    return jnp.where(a > b, a, jnp.where(b > a, b, 0.5 * a + 0.5 * b))


def smaller(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`min(a, b)` by element. Equal elements share the gradient, and NaN gives NaN."""
    return jnp.where(a < b, a, jnp.where(b < a, b, 0.5 * a + 0.5 * b))
