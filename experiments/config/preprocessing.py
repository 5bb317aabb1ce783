"""What is done to an image before the backbone sees it, as its weights expect.

It follows from the config alone, so that every program does to an image what training did.
"""

import inspect

import ml_collections

from experiments.config import components
from triplet_jax import errors
from triplet_jax.models import published

UNIT = published.Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NAMED = {
    "unit": UNIT,
    "imagenet": published.IMAGENET,
    "half": published.HALF,
    "clip": published.CLIP,
}
"""The names of `model.pixels`, beside "auto"."""


def has_weights(config: ml_collections.ConfigDict) -> bool:
    """Whether the encoder starts from weights of a file or of another run."""
    return bool(config.model.weights or config.model.init_from)


def expected(
    config: ml_collections.ConfigDict, field: str = "name"
) -> published.Preprocessing | None:
    """What the weights expect of an image; None without weights, and where nothing is known.

    Args:
      config: of the run.
      field: the field of `model` that names the backbone: "name" or "second".
    """
    if not has_weights(config):
        return None
    name = config.model[field] or config.model.name
    made = inspect.signature(components.find(f"model.{field}", name)).parameters
    found = made["expects"].default if "expects" in made else None
    return found if isinstance(found, published.Preprocessing) else None


def statistics(
    config: ml_collections.ConfigDict, field: str, shape: tuple[int, ...]
) -> published.Preprocessing | None:
    """What the encoder subtracts from values from 0 to 1, and divides by; None for neither.

    Args:
      config: of the run.
      field: the field of `model` that names the backbone: "name" or "second".
      shape: of one input.

    Raises:
      InputError: the inputs are no images, or have a number of channels that it cannot take.
    """
    pixels = config.model.pixels
    if len(shape) != 3:
        if pixels != "auto":
            raise errors.InputError(
                f"model.pixels={pixels!r} has no effect on inputs of shape {shape}, which are no"
                " images. Leave it out."
            )
        return None
    # A grey image has to become one of three channels for published weights, whatever is done to
    # its values.
    found = expected(config, field) if pixels == "auto" else NAMED[pixels]
    if found == UNIT and not config.model.weights:
        return None
    if found is not None and shape[2] not in (1, len(found.mean)):
        raise errors.InputError(
            f"model.pixels={pixels!r} needs images of {len(found.mean)} channels, or grey ones, not"
            f" of {shape[2]}. Set dataset.channels={len(found.mean)}."
        )
    return found


def stem(config: ml_collections.ConfigDict) -> str:
    """The first layer of a resnet, by the names of `models.ResNet`."""
    if config.model.stem != "auto":
        return config.model.stem
    return "7x7" if has_weights(config) else "by_size"
