"""From the fields of a config to the random changes of images."""

from collections.abc import Callable

import jax
import ml_collections

from experiments.config import components
from triplet_jax import errors
from triplet_jax.data import augment


def augmentation(
    config: ml_collections.ConfigDict, input_shape: tuple[int, ...]
) -> Callable | None:
    """The random changes to an image, `(key, image) -> image`; None where there are none.

    Raises:
      InputError: inputs of this shape cannot be changed like that.
    """
    c = config.augment
    own = components.augmentation(c.own, input_shape) if c.own else None
    if not any(value for name, value in c.items() if name != "own"):
        return own
    chain = _chain(c, input_shape)
    if own is None:
        return chain

    def both(key, image):
        first, second = jax.random.split(key)
        return own(second, chain(first, image))

    return both


def _chain(c, input_shape):
    if len(input_shape) != 3:
        raise errors.InputError(
            f"augment changes images, but an input has shape {input_shape}; set its fields to 0."
        )
    if c.turn and input_shape[0] != input_shape[1]:
        raise errors.InputError(f"augment.turn=True needs square images, not {input_shape}.")
    if c.crop >= min(input_shape[:2]):
        raise errors.InputError(
            f"augment.crop={c.crop} may leave nothing of an image of {input_shape[0]} x"
            f" {input_shape[1]}: set it below {min(input_shape[:2])}."
        )
    return augment.chain(
        crop_pixels=c.crop,
        flip_sides=c.flip,
        turn=c.turn,
        shift=c.shift,
        rotate=c.rotate,
        scale=c.scale,
        shear=c.shear,
        noise_std=c.noise,
    )
