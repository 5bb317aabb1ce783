"""Which features of a data set of tensorflow-datasets are the image and the class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triplet_jax import errors

Path = tuple[str, ...]


def choose(name: str, info: Any, image_feature: str, label_feature: str) -> tuple[Path, Path]:
    """The paths of the image and of the label in a record.

    A feature that is named is taken. Else it is one of `info.supervised_keys`, by its kind and not
    by its place there; else the one that is called "image" or "label"; else the only one.

    Args:
      name: of the data set, for messages.
      info: `tfds.core.DatasetInfo`.
      image_feature: such as "image", and of a nested one "camera/image"; empty to find it.
      label_feature: of a class label, an integer, a boolean or a text; empty to find it.

    Raises:
      InputError: naming those that are possible, where there is none or more than one.
    """
    import tensorflow_datasets as tfds

    every = leaves(info.features)
    images = [path for path, feature in every.items() if _is_image(feature)]
    labels = [path for path, feature in every.items() if _is_label(feature)]
    classes = [path for path in labels if isinstance(every[path], tfds.features.ClassLabel)]
    keys = [tuple(key.split("/")) for key in info.supervised_keys or () if isinstance(key, str)]
    image = (
        _named("image", image_feature, images, name)
        or _only(_among(images, keys))
        or _only(_among(images, [("image",)]))
        or _only(images)
    )
    if not image:
        _refuse("image", images, every, name)
    label = (
        _named("label", label_feature, labels, name)
        or _only(_among(classes, keys))
        or _only(_among(labels, keys))
    )
    if not label and not keys:
        label = _only(_among(labels, [("label",)])) or _only(classes)
    if not label:
        _refuse("label", labels, every, name)
    return image, label


def leaves(features: Any, above: Path = ()) -> dict[Path, Any]:
    """Every feature by its path, but for those within sequences."""
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict):
        return {above: features}
    found = {}
    for name, feature in features.items():
        found |= leaves(feature, (*above, name))
    return found


def subset(features: Any, paths: Sequence[Path]) -> Any:
    """The features at these paths alone, nested as they are."""
    import tensorflow_datasets as tfds

    chosen = {}
    for name in {path[0] for path in paths}:
        below = [path[1:] for path in paths if path[0] == name]
        chosen[name] = features[name] if () in below else subset(features[name], below)
    return tfds.features.FeaturesDict(chosen)


def text(path: Path) -> str:
    """What a feature is called in a config."""
    return "/".join(path)


def _is_image(feature):
    import tensorflow_datasets as tfds

    is_mask = isinstance(feature, tfds.features.LabeledImage)
    return isinstance(feature, tfds.features.Image) and not is_mask


def _is_label(feature):
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.ClassLabel | tfds.features.Text):
        return True
    if not isinstance(feature, tfds.features.Tensor) or feature.shape != ():
        return False
    return np.issubdtype(feature.np_dtype, np.integer) or feature.np_dtype == np.bool_


def _among(paths, wanted):
    return [path for path in paths if text(path) in map(text, wanted)]


def _only(paths):
    return paths[0] if len(paths) == 1 else None


def _named(kind, value, possible, name):
    if not value:
        return None
    found = [path for path in possible if text(path) == value]
    if not found:
        raise errors.InputError(
            f"dataset.{kind}_feature={value!r} is no feature of dataset.name={name!r} that can be"
            f" the {kind}. {_listed(possible)}"
        )
    return found[0]


def _refuse(kind, possible, every, name):
    if not possible:
        raise errors.InputError(
            f"dataset.name={name!r} has no feature that can be the {kind}: it has"
            f" {', '.join(map(text, every))}. Choose another data set."
        )
    raise errors.InputError(
        f"dataset.name={name!r} does not say which of its features is the {kind}: set"
        f" dataset.{kind}_feature. {_listed(possible)}"
    )


def _listed(possible):
    return f"Possible: {', '.join(sorted(map(text, possible)))}."
