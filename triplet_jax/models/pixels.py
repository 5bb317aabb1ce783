"""Scales the pixels of images to [0, 1], as every encoder sees them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def as_floats(inputs: Shaped[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Divides images of uint8 by 255; features of floats stay as they are."""
    return inputs / jnp.float32(255) if inputs.dtype == jnp.uint8 else inputs
