"""Which features of a tensorflow-datasets record are the image and its class."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from triplet_jax import errors

Path = tuple[str, ...]


def choose(name: str, info: Any, image_feature: str, label_feature: str) -> tuple[Path, Path]:
    """Finds the image and the label in a record.

    A feature that is named is taken. Otherwise it is the one of the right kind among
    `info.supervised_keys`, whatever its position there; else the one called "image" or "label";
    else the only one of the right kind.

    Args:
      name: the data set, for messages.
      info: `tfds.core.DatasetInfo`.
      image_feature: the path of the image, such as "image", or "camera/image" where it is nested;
        empty to find it.
      label_feature: the path of the label, which is a class label, an integer, a boolean or a
        text; empty to find it.

    Returns:
      The paths of the image and of the label.

    Raises:
      InputError: no feature qualifies, or several do; the message lists them.
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
    """Every feature by its path, except for features within sequences."""
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict):
        return {above: features}
    found = {}
    for name, feature in features.items():
        found |= leaves(feature, (*above, name))
    return found


def subset(features: Any, paths: Sequence[Path]) -> Any:
    """A `FeaturesDict` of only the features at these paths, nested as before."""
    import tensorflow_datasets as tfds

    chosen = {}
    for name in {path[0] for path in paths}:
        below = [path[1:] for path in paths if path[0] == name]
        chosen[name] = features[name] if () in below else subset(features[name], below)
    return tfds.features.FeaturesDict(chosen)


def text(path: Path) -> str:
    """A path as text, such as "camera/image"."""
    return "/".join(path)


def _is_image(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    is_mask = isinstance(feature, tfds.features.LabeledImage)
    return isinstance(feature, tfds.features.Image) and not is_mask


def _is_label(feature: Any) -> bool:
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.ClassLabel | tfds.features.Text):
        return True
    if not isinstance(feature, tfds.features.Tensor) or feature.shape != ():
        return False
    return np.issubdtype(feature.np_dtype, np.integer) or feature.np_dtype == np.bool_


def _among(paths: Sequence[Path], wanted: Sequence[Path]) -> list[Path]:
    return [path for path in paths if text(path) in map(text, wanted)]


def _only(paths: Sequence[Path]) -> Path | None:
    return paths[0] if len(paths) == 1 else None


def _named(kind: str, value: str, possible: Sequence[Path], name: str) -> Path | None:
    if not value:
        return None
    found = [path for path in possible if text(path) == value]
    if not found:
        raise errors.InputError(
            f"{kind}_feature={value!r} is no feature of name={name!r} that can be"
            f" the {kind}. {_listed(possible)}"
        )
    return found[0]


def _refuse(kind: str, possible: Sequence[Path], every: Mapping[Path, Any], name: str) -> NoReturn:
    if not possible:
        raise errors.InputError(
            f"name={name!r} has no feature that can be the {kind}: it has"
            f" {', '.join(map(text, every))}. Choose another data set."
        )
    raise errors.InputError(
        f"name={name!r} does not say which of its features is the {kind}: set"
        f" {kind}_feature=NAME. {_listed(possible)}"
    )


def _listed(possible: Sequence[Path]) -> str:
    return f"Possible: {', '.join(sorted(map(text, possible)))}."
