"""The values of images, as encoders and backbones see them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from triplet_jax import errors
from triplet_jax.models.published import Preprocessing


def as_floats(inputs: Shaped[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Divides images of uint8 by 255; features of floats stay as they are."""
    return inputs / jnp.float32(255) if inputs.dtype == jnp.uint8 else inputs


def normalised(
    images: Float[Array, "batch height width channels"], statistics: Preprocessing
) -> Float[Array, "batch height width new_channels"]:
    """`(x - mean) / std` of each channel. A grey image first becomes one of as many equal channels.

    >>> half = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> print(normalised(jnp.ones((1, 1, 1, 1)), half))
    [[[[1. 1. 1.]]]]

    Args:
      images: with values from 0 to 1.
      statistics: the mean and the deviation of each channel.

    Raises:
      InputError: the images are not grey, and have another number of channels.
    """
    channels = len(statistics.mean)
    if images.shape[-1] not in (1, channels):
        raise errors.InputError(
            f"images of {images.shape[-1]} channels cannot be normalised by the statistics of"
            f" {channels}. Give grey images, or images of {channels} channels."
        )
    mean, std = jnp.asarray(statistics.mean), jnp.asarray(statistics.std)
    return (images - mean) / std
