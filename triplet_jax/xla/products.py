"""Matrix products, in full float32 precision or in a lower one that the user asks for.

In a lower precision the operands are rounded to a type of fewer digits. The product of two such
numbers is exact in float32, and products are added up in float32. So every device gives the same
values but for the order of the sum. What it gains differs: a GPU has units for both types, and a
CPU may have some for bfloat16.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Precision:
    """In what precision a matrix is multiplied by another."""

    digits: int | None = None
    """Binary digits after the first of what is multiplied; None for all that it has."""
    algorithm: jax.lax.DotAlgorithmPreset | None = None
    """The product of accelerators that have one for this type."""
    accelerators: tuple[str, ...] = ()
    """Those that have it. Elsewhere rounded numbers are multiplied in float32."""
    kind: jnp.dtype | None = None
    """The type itself, if jax has it. A CPU is faster with it than with rounded numbers."""

    def rounded(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x` rounded, still in its own type; the slope stays that of `x`."""
        return x if self.digits is None else _rounded(self.digits, x)

    def product(self, a: Float[Array, "m dim"], b: Float[Array, "dim n"]) -> Float[Array, "m n"]:
        """The product of rounded matrices, in the type of these."""
        return product(a, b) if self.digits is None else _product(self, a, b)

    def with_rounded_slopes(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """`x`, whose gradient is rounded before it is multiplied further."""
        return x if self.digits is None else _with_rounded_slopes(self.digits, x)


FULL = Precision()
PRECISIONS: dict[str, Precision] = {
    "float32": FULL,
    "tf32": Precision(10, jax.lax.DotAlgorithmPreset.TF32_TF32_F32, ("gpu",)),
    "bfloat16": Precision(
        7,
        jax.lax.DotAlgorithmPreset.BF16_BF16_F32,
        ("gpu", "tpu"),
        jnp.dtype(jnp.bfloat16),
    ),
}
"""The precisions by name. `Precision` says what each of their numbers means."""


def product(a: Float[Array, "m dim"], b: Float[Array, "dim n"]) -> Float[Array, "m n"]:
    """The matrix product, in full float32 precision on every accelerator."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _round(digits: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    # A cast there and back would do it too, but XLA may leave both out.
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=digits)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rounded(digits: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    return _round(digits, x)


@_rounded.defjvp
def _slope_of_rounded(digits, primals, tangents):
    return _rounded(digits, *primals), tangents[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _with_rounded_slopes(digits: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    del digits
    return x


@_with_rounded_slopes.defjvp
def _rounded_slope(digits, primals, tangents):
    # Rounding counts as linear in jax, and is its own transpose.
    return _with_rounded_slopes(digits, *primals), _round(digits, tangents[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(
    precision: Precision, a: Float[Array, "m dim"], b: Float[Array, "dim n"]
) -> Float[Array, "m n"]:
    if precision.kind is None:
        return _of_rounded(precision, a, b)
    low = a.astype(precision.kind), b.astype(precision.kind)
    return jnp.matmul(*low, preferred_element_type=jnp.float32).astype(a.dtype)


@_product.defjvp
def _slope_of_product(precision, primals, tangents):
    # The gradient of the product in bfloat16 itself would be rounded a second time.
    (a, b), (of_a, of_b) = primals, tangents
    slope = _of_rounded(precision, of_a, b) + _of_rounded(precision, a, of_b)
    return _product(precision, a, b), slope


def _of_rounded(
    precision: Precision, a: Float[Array, "m dim"], b: Float[Array, "dim n"]
) -> Float[Array, "m n"]:
    if jax.default_backend() not in precision.accelerators:
        return product(a, b)
    low = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.matmul(*low, precision=precision.algorithm).astype(a.dtype)
