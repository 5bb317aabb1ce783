"""From the fields of a config to the random changes of images."""

from collections.abc import Callable

import jax
import ml_collections

from experiments.config import components
from triplet_jax import errors
from triplet_jax.data import augment, augment_photos


def augmentation(
    config: ml_collections.ConfigDict, input_shape: tuple[int, ...]
) -> Callable | None:
    """The random changes to an image, `(key, image) -> image`; None where there are none.

    Raises:
      InputError: inputs of this shape cannot be changed like that.
    """
    c = config.augment
    own = components.augmentation(c.own, input_shape) if c.own else None
    if any(c[name] for name in (*_OF_PHOTOS, *_OTHERS)):
        _check_shape(c, input_shape)
    chain = None
    if any(c[name] for name in _OF_PHOTOS):
        chain = augment_photos.chain(**{given: c[name] for name, given in _CHAIN_OF_PHOTOS.items()})
    if any(c[name] for name in _OTHERS):
        chain = _in_turn(chain, augment.chain(**{given: c[name] for name, given in _CHAIN.items()}))
    return _in_turn(chain, own)


# The arguments of `augment_photos.chain` and of `augment.chain`, by field.
_CHAIN_OF_PHOTOS = {
    "resized_crop": "smallest",
    "aspect": "aspect",
    "brightness": "brightness",
    "contrast": "contrast",
    "saturation": "saturation",
    "hue": "hue",
    "grey": "grey_share",
    "blur": "largest_blur",
    "erase": "erase_share",
}
_CHAIN = {
    "crop": "crop_pixels",
    "flip": "flip_sides",
    "turn": "turn",
    "shift": "shift",
    "rotate": "rotate",
    "scale": "scale",
    "shear": "shear",
    "noise": "noise_std",
}
_OTHERS = tuple(_CHAIN)
_OF_PHOTOS = tuple(name for name in _CHAIN_OF_PHOTOS if name != "aspect")


def changes_something(config: ml_collections.ConfigDict) -> bool:
    """Whether a config has any augmentation."""
    c = config.augment
    return any(c[name] for name in (*_OF_PHOTOS, *_OTHERS, "own"))


def crops_at_random(config: ml_collections.ConfigDict) -> bool:
    """Whether training images are random parts of pictures, whatever `dataset.crop_ratio` is."""
    return bool(config.augment.resized_crop)


def _in_turn(first, second):
    """Both functions, each with a key of its own; either may be None."""
    if first is None or second is None:
        return first or second

    def both(key, image):
        of_first, of_second = jax.random.split(key)
        return second(of_second, first(of_first, image))

    return both


def _check_shape(c, input_shape):
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
    of_colour = [f"augment.{n}={c[n]}" for n in ("saturation", "hue", "grey") if c[n]]
    if of_colour and input_shape[2] not in (1, 3):
        raise errors.InputError(
            f"{' and '.join(of_colour)} need images of 1 or 3 channels, not of {input_shape[2]}:"
            " set them to 0."
        )
