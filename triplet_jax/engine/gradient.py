"""A value whose gradient was found beside it, for jax to differentiate."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from triplet_jax import errors

DERIVATIVES = ("first", "all")
"""What a loss offers: first derivatives, which the sweep finds, or those of any order."""


@jax.custom_jvp
def with_gradient(value: Float[Array, ""], inputs: PyTree, gradient: PyTree) -> Float[Array, ""]:
    """`value`, whose gradient in `inputs` is `gradient`, in forward and in reverse mode.

    If nobody takes the derivative, the compiler drops all that computes it. A second derivative is
    refused: jax would take the gradient for a constant, and find zero.

    Raises:
      InputError: when a derivative of a derivative is taken.
    """
    del inputs, gradient
    return value


@with_gradient.defjvp
def _slope(
    primals: tuple[Float[Array, ""], PyTree, PyTree], tangents: tuple[Float[Array, ""], PyTree, Any]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    value, inputs, gradient = primals
    of_value, of_inputs, _ = tangents
    gradient = _once(gradient, (value, inputs))
    # Rows may be of float64, and the value is of float32.
    along = jax.tree.map(
        lambda slope, tangent: jnp.sum(slope * tangent).astype(value.dtype), gradient, of_inputs
    )
    # `value` itself may depend on numbers that a miner or a penalty closes over.
    return with_gradient(*primals), sum(jax.tree.leaves(along), of_value)


@jax.custom_jvp
def _once(gradient: PyTree, depends_on: PyTree) -> PyTree:
    """`gradient`, which refuses to be differentiated in what it depends on."""
    del depends_on
    return gradient


@_once.defjvp
def _refuse(primals: tuple[PyTree, PyTree], tangents: tuple[PyTree, PyTree]) -> NoReturn:
    del primals, tangents
    raise errors.InputError(
        "derivatives='first' gives first derivatives alone, and a derivative of one was asked for"
        " (a Hessian, or a penalty on a gradient). Pass derivatives='all' to the loss. Jax then"
        " differentiates it as often as needed, which takes more time and memory."
    )
