"""Weights as others publish them, and where each array goes in a backbone of ours."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from triplet_jax import errors

Path = tuple[str, ...]
"""Where an array is among a backbone's variables, such as ("params", "conv1", "kernel")."""


class Form(NamedTuple):
    """How an array is published, and how we hold it."""

    ours: Callable[[np.ndarray], np.ndarray]
    published: Callable[[np.ndarray], np.ndarray]
    """The inverse of `ours`."""


AS_IS = Form(lambda x: x, lambda x: x)
DENSE = Form(lambda x: x.T, lambda x: x.T)
"""A matrix of a linear layer: [out, in] there, [in, out] here."""
CONV = Form(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
"""A kernel of a convolution: [out, in, height, width] there, [height, width, in, out] here."""


class Stored(NamedTuple):
    """The published name of an array, and its form."""

    name: str
    form: Form = AS_IS


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way in which the weights of a backbone are published.

    Args:
      name: of the library whose names these are, such as "timm".
      arrays: every array of the backbone, by its path.
      left_out: patterns of names that such a file may hold and the backbone does not use, such as
        its classifier; each matches a whole name.
    """

    name: str
    arrays: Mapping[Path, Stored]
    left_out: tuple[str, ...] = ()

    def leaves_out(self, name: str) -> bool:
        """Whether an array of this published name is left out on purpose."""
        return any(re.fullmatch(pattern, name) for pattern in self.left_out)


class Preprocessing(NamedTuple):
    """What a backbone's published weights expect of an image whose values are from 0 to 1.

    A channel becomes `(x - mean) / std`. For evaluation an image is resized by `resample`, so that
    the square in its middle, `crop_ratio` of the shorter side, has the encoder's size.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str = "bicubic"
    crop_ratio: float = 1.0


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The statistics of ImageNet, as torchvision and most of timm use them."""
HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Values from -1 to 1, as Inception and SigLIP use them."""
CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""The statistics of the images that CLIP was trained on."""


class Filled(NamedTuple):
    """A backbone's variables with published weights, and what was made of the file."""

    variables: dict[str, PyTree]
    layout: str
    left_out: tuple[str, ...]
    """The names that were left out on purpose, such as those of the classifier."""


def fill(
    variables: Mapping[str, PyTree], tensors: Mapping[str, np.ndarray], layouts: tuple[Layout, ...]
) -> Filled:
    """Replaces every array of a backbone by the published one.

    Args:
      variables: of the backbone, `params` and `batch_stats`; arrays, or their shapes and types.
      tensors: the published arrays, by name.
      layouts: those that the backbone knows. The one that knows most names of `tensors` is used.

    Raises:
      InputError: an array of the backbone is missing or has another shape, or a published array
        is neither used nor left out on purpose.
    """
    layout = max(layouts, key=lambda one: sum(s.name in tensors for s in one.arrays.values()))
    ours = flax.traverse_util.flatten_dict(dict(variables))
    _check_names(layout, ours, tensors)
    filled, wrong = {}, []
    for path, array in ours.items():
        name, form = layout.arrays[path]
        filled[path] = _converted(tensors[name], form)
        if filled[path] is None or filled[path].shape != tuple(array.shape):
            wrong.append(
                f"  {name} {list(tensors[name].shape)}, for {'/'.join(path)} {list(array.shape)}"
            )
    if wrong:
        raise errors.InputError(
            f"the weights, by the names of {layout.name}, have arrays of other shapes than the"
            f" backbone:\n{_listed(wrong)}\nTake the backbone that the weights were published for."
        )
    return Filled(
        flax.traverse_util.unflatten_dict(
            {k: jnp.asarray(x, jnp.float32) for k, x in filled.items()}
        ),
        layout.name,
        tuple(sorted(name for name in tensors if layout.leaves_out(name))),
    )


def published(variables: Mapping[str, PyTree], layout: Layout) -> dict[str, np.ndarray]:
    """The arrays of a backbone under their published names: the inverse of `fill`."""
    ours = flax.traverse_util.flatten_dict(dict(variables))
    return {
        stored.name: np.ascontiguousarray(stored.form.published(np.asarray(ours[path])))
        for path, stored in layout.arrays.items()
    }


def _check_names(
    layout: Layout, ours: Mapping[Path, PyTree], tensors: Mapping[str, np.ndarray]
) -> None:
    """Refuses names that are missing, or neither used nor left out on purpose."""
    used = {layout.arrays[path].name for path in ours}
    missing = sorted(used - set(tensors))
    unknown = sorted(n for n in tensors if n not in used and not layout.leaves_out(n))
    if not missing and not unknown:
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {len(used)} arrays are missing:\n{_listed(missing)}")
    if unknown:
        parts.append(f"{len(unknown)} arrays have no place in the backbone:\n{_listed(unknown)}")
    raise errors.InputError(
        f"the weights do not fit the backbone, by the names of {layout.name}: "
        + "\nand ".join(parts)
        + "\nTake the backbone that the weights were published for, or a whole file."
    )


def _converted(array: np.ndarray, form: Form) -> np.ndarray | None:
    """The array as we hold it; None where it has another number of axes."""
    try:
        return form.ours(array)
    except ValueError:
        return None


def _listed(lines: list[str], most: int = 8) -> str:
    more = [f"  ... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"  {line.strip()}" for line in lines[:most]] + more)
