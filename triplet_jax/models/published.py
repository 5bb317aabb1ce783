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


OWN = "triplet_jax."
"""What the names start with that we give to what surrounds a backbone, such as its head."""


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


class Part(NamedTuple):
    """Some rows of a published array that holds several arrays of ours, such as q, k and v."""

    start: int
    stop: int
    rows: int
    """How many rows the published array has."""
    axis: int = 0

    def of(self, array: np.ndarray) -> np.ndarray:
        """This part of the published array.

        Raises:
          ValueError: the array has another number of rows.
        """
        if array.ndim <= self.axis or array.shape[self.axis] != self.rows:
            raise ValueError(f"not {self.rows} rows along axis {self.axis}: {array.shape}")
        return array.take(range(self.start, self.stop), self.axis)


class Stored(NamedTuple):
    """How one of our arrays is published."""

    name: str | None
    """Its published name; None where it is zero and therefore not published."""
    form: Form = AS_IS
    part: Part | None = None
    """The part of the published array that is ours; None for all of it."""
    plus: "Stored | None" = None
    """Another published array, which is added to this one. We publish it as zeros."""

    def names(self) -> tuple[str, ...]:
        """The published names, of which there may be none or two."""
        own = () if self.name is None else (self.name,)
        return own + (self.plus.names() if self.plus else ())

    def ours(self, tensors: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        """The array as we hold it.

        Raises:
          ValueError: it has another shape.
        """
        if self.name is None:
            return np.zeros(shape, np.float32)
        array = tensors[self.name]
        array = self.form.ours(array if self.part is None else self.part.of(array))
        if array.shape != shape:
            raise ValueError(f"shape {array.shape} for {shape}")
        if self.plus is None:
            return array
        return array.astype(np.float32) + self.plus.ours(tensors, shape).astype(np.float32)

    def pieces(self, array: np.ndarray) -> list[tuple[str, Part | None, np.ndarray]]:
        """What our array is published as: for each name, the part, and its values.

        Raises:
          ValueError: it is not published, and is not zero.
        """
        if self.name is None:
            if array.any():
                raise ValueError("it is not zero")
            return []
        own = [(self.name, self.part, self.form.published(array))]
        return own + (self.plus.pieces(np.zeros_like(array)) if self.plus else [])


def kernel(path: Path, name: str, form: Form = CONV) -> dict[Path, Stored]:
    """Where the kernel of a layer is published, by the path and the published name of the layer."""
    return {("params", *path, "kernel"): Stored(f"{name}.weight", form)}


def kernel_and_bias(path: Path, name: str, form: Form) -> dict[Path, Stored]:
    """Where the parameters of a layer with a bias are published; see `kernel`."""
    return kernel(path, name, form) | {("params", *path, "bias"): Stored(f"{name}.bias")}


def scale_and_bias(path: Path, name: str) -> dict[Path, Stored]:
    """Where the parameters of a normalisation are published; see `kernel`."""
    return {
        ("params", *path, "scale"): Stored(f"{name}.weight"),
        ("params", *path, "bias"): Stored(f"{name}.bias"),
    }


def batch_norm(path: Path, name: str) -> dict[Path, Stored]:
    """Where batch normalisation is published, with its running statistics; see `kernel`."""
    return scale_and_bias(path, name) | {
        ("batch_stats", *path, "mean"): Stored(f"{name}.running_mean"),
        ("batch_stats", *path, "var"): Stored(f"{name}.running_var"),
    }


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way in which the weights of a backbone are published.

    Args:
      name: of the library whose names these are, such as "timm".
      arrays: every array of the backbone, by its path.
      left_out: patterns of names that such a file may hold and the backbone does not use, such as
        its classifier; each matches a whole name.
      zeros: the shapes of arrays that the library has and the backbone does not, by their names.
        They are published as zeros, and left out if they are.
    """

    name: str
    arrays: Mapping[Path, Stored]
    left_out: tuple[str, ...] = ()
    zeros: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def leaves_out(self, name: str) -> bool:
        """Whether an array of this name is left out on purpose: also what is not the backbone's."""
        if name.startswith(OWN) or name in self.zeros:
            return True
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
      layouts: those that the backbone knows. The one whose names fit `tensors` best is used.

    Raises:
      InputError: an array of the backbone is missing, is no float32 or has another shape, a
        published array is neither used nor left out on purpose, or the layout is not one of these
        arrays.
    """
    layout = max(layouts, key=lambda one: _fit(one, tensors))
    ours = flax.traverse_util.flatten_dict(dict(variables))
    _check_places(layout, ours)
    _check_names(layout, ours, tensors)
    _check_types(layout, ours, tensors)
    _check_zeros(layout, tensors)
    filled, wrong = {}, []
    for path, array in ours.items():
        stored = layout.arrays[path]
        try:
            filled[path] = stored.ours(tensors, tuple(array.shape))
        except ValueError:
            found = ", ".join(f"{name} {list(tensors[name].shape)}" for name in stored.names())
            wrong.append(f"  {found}, for {'/'.join(path)} {list(array.shape)}")
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
    """The arrays of a backbone under their published names: the inverse of `fill`.

    Raises:
      InputError: the layout has no place for an array that is not zero, or it is not one of these
        arrays.
    """
    ours = flax.traverse_util.flatten_dict(dict(variables))
    _check_places(layout, ours)
    pieces: dict[str, list[tuple[Part | None, np.ndarray]]] = {}
    for path, stored in layout.arrays.items():
        try:
            for name, part, array in stored.pieces(np.asarray(ours[path])):
                pieces.setdefault(name, []).append((part, array))
        except ValueError as error:
            raise errors.InputError(
                f"{'/'.join(path)} cannot be published by the names of {layout.name}, which have no"
                f" place for it, because {error}. Take another layout."
            ) from error
    found = {name: np.ascontiguousarray(_joined(parts)) for name, parts in pieces.items()}
    return found | {name: np.zeros(shape, np.float32) for name, shape in layout.zeros.items()}


def _joined(parts: list[tuple[Part | None, np.ndarray]]) -> np.ndarray:
    """A published array from its parts."""
    if len(parts) == 1:
        return parts[0][1]
    parts = sorted(parts, key=lambda one: one[0].start)
    return np.concatenate([array for _, array in parts], parts[0][0].axis)


def _fit(layout: Layout, tensors: Mapping[str, np.ndarray]) -> int:
    """How many names of the layout are in a file, less those that are not."""
    names = {name for stored in layout.arrays.values() for name in stored.names()}
    return len(names & set(tensors)) - len(names - set(tensors))


def _check_places(layout: Layout, ours: Mapping[Path, PyTree]) -> None:
    """Refuses a layout that forgets an array of the backbone, or has one that is not there."""
    for paths, what in (
        (ours.keys() - layout.arrays.keys(), "forgets arrays of the backbone"),
        (layout.arrays.keys() - ours.keys(), "has arrays that the backbone has not"),
    ):
        if paths:
            raise errors.InputError(
                f"the layout {layout.name!r} {what}:\n{_listed(sorted(map('/'.join, paths)))}\n"
                "Mend the method `layouts` of the backbone."
            )


def _check_names(
    layout: Layout, ours: Mapping[Path, PyTree], tensors: Mapping[str, np.ndarray]
) -> None:
    """Refuses names that are missing, or neither used nor left out on purpose."""
    used = {name for path in ours for name in layout.arrays[path].names()}
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


def _check_types(
    layout: Layout, ours: Mapping[Path, PyTree], tensors: Mapping[str, np.ndarray]
) -> None:
    """Refuses arrays of another type, such as those of quantised weights."""
    used = sorted({name for path in ours for name in layout.arrays[path].names()})
    wrong = [f"{name} {tensors[name].dtype}" for name in used if tensors[name].dtype != np.float32]
    if wrong:
        raise errors.InputError(
            f"the weights have arrays that are no float32, float16 or bfloat16:\n{_listed(wrong)}\n"
            "Give weights of these types."
        )


def _check_zeros(layout: Layout, tensors: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays that are not zero in the file, where the backbone leaves them out as zeros."""
    wrong = sorted(name for name in layout.zeros if name in tensors and tensors[name].any())
    if wrong:
        raise errors.InputError(
            f"the weights have arrays that are not zero, for which the backbone has no place:\n"
            f"{_listed(wrong)}\nGive weights in which they are zero, as the published ones."
        )


def _listed(lines: list[str], most: int = 8) -> str:
    more = [f"  ... and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join([f"  {line.strip()}" for line in lines[:most]] + more)
