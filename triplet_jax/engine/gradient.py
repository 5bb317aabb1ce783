"""A value whose gradient was found beside it, and what may be done with the two."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from triplet_jax import errors

DERIVATIVES = ("first", "all")
"""What a loss may be asked for: first derivatives, from the one sweep, or those of any order."""


@jax.custom_jvp
def with_gradient(value: Float[Array, ""], inputs: PyTree, gradient: PyTree) -> Float[Array, ""]:
    """`value`, whose gradient in `inputs` is `gradient`, in forward and in reverse mode.

    Where no derivative is asked for, the compiler drops everything that leads to it. A second
    derivative is refused: to jax the gradient is a constant, of which it would be zero.

    Raises:
      InputError: when a derivative of a derivative is taken.
    """
    del inputs, gradient
    return value


@with_gradient.defjvp
def _slope(primals, tangents):
    value, inputs, gradient = primals
    of_value, of_inputs, _ = tangents
    gradient = _once(gradient, (value, inputs))
    along = jax.tree.map(lambda slope, tangent: jnp.sum(slope * tangent), gradient, of_inputs)
    # The value itself may depend on numbers that a miner or a penalty closes over.
    return with_gradient(*primals), sum(jax.tree.leaves(along), of_value)


@jax.custom_jvp
def _once(gradient, depends_on):
    """`gradient`, which is no constant while what it depends on is differentiated."""
    del depends_on
    return gradient


@_once.defjvp
def _refuse(primals, tangents):
    del primals, tangents
    raise errors.InputError(
        "derivatives='first' gives first derivatives alone, and a derivative of one was asked for"
        " (a Hessian, or a penalty on a gradient). Pass derivatives='all' to the loss: it is then"
        " differentiated by jax, as often as needed, which takes more time and memory."
    )
