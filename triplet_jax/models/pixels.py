"""What an encoder sees of an input."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def as_floats(inputs: Shaped[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """What the encoder sees: images of bytes in [0, 1], features as they are."""
    return inputs / jnp.float32(255) if inputs.dtype == jnp.uint8 else inputs
