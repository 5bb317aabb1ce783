"""Data sets of arrays in .npz files: examples with labels, and pairs."""

import math
import os
import zipfile
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors
from triplet_jax.data import splits
from triplet_jax.data.dataset import SPLITS as SPLITS
from triplet_jax.data.dataset import Dataset as Dataset
from triplet_jax.data.dataset import fingerprint as fingerprint
from triplet_jax.data.dataset import fingerprints as fingerprints
from triplet_jax.data.dataset import images_as_classes as images_as_classes
from triplet_jax.data.dataset import quarter_turns_as_classes as quarter_turns_as_classes
from triplet_jax.data.image_folders import folder as folder
from triplet_jax.data.image_folders import split_groups
from triplet_jax.data.splits import hold_out as hold_out
from triplet_jax.data.tfds import from_tfds as from_tfds


def arrays(
    path: str, *, split_by: str, test_fraction: float, validation_fraction: float, seed: int
) -> Dataset:
    """An .npz file with `x`, uint8 images or float features, and `y`, the labels.

    Args:
      path: the file. `x` is `[examples, height, width, channels]` of uint8, with 1 or 3
        channels, or `[examples, features]` of floats; `y` is `[examples]`, of integers, strings or
        booleans, which are only compared.
      split_by: "image" holds out examples of every class, "class" whole classes, and "group" whole
        groups of examples, by an array `group` `[examples]` of integers or strings.
      test_fraction: held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.

    Raises:
      InputError: the file, its keys, shapes or types are not these, or a value is not finite.
    """
    errors.check_known("dataset.split_by", split_by, ("image", "class", "group"))
    names = ("x", "y", "group") if split_by == "group" else ("x", "y")
    x, *of_examples = read_arrays(path, names, field="dataset.path")
    x = _images_or_features(path, "x", x)
    y, *group = (
        _one_for_each(path, name, values, x)
        for name, values in zip(names[1:], of_examples, strict=True)
    )
    class_names, labels = np.unique(y, return_inverse=True)
    labels = labels.astype(np.int32)
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    if group:
        split, notes = split_groups(path, labels, group[0], seed=seed, **fractions)
    else:
        split, notes = splits.at_random(labels, by=split_by, seed=seed, **fractions), []
    return Dataset(x, labels, split, tuple(map(str, class_names)), notes=tuple(notes))


def _one_for_each(path, name, values, x):
    """An array of a file with a value that can be compared for each row of x; bytes as text."""
    if values.dtype.kind not in "iubUS" or values.shape != (len(x),):
        raise errors.InputError(
            f"dataset.path={path!r}: {name} has shape {values.shape} and dtype {values.dtype}, and"
            f" x has shape {x.shape}. {name} must be integers, strings or booleans of shape"
            f" ({len(x)},), one for each of the {len(x)} rows of x."
        )
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def pairs(path: str, *, test_fraction: float, validation_fraction: float, seed: int) -> Dataset:
    """An .npz file with `x` and `pair`, where row i of one belongs to row i of the other.

    A pair is a class of two examples, `2i` from `x` and `2i + 1` from `pair`, and stays whole in
    every split. Inputs of both are brought to one shape: flattened, images scaled to [0, 1], filled
    up with zeros, and at the end 0 for a row of `x` and 1 for one of `pair`.

    Args:
      path: the file. Each array is as `x` in `arrays`, and their shapes may differ.
      test_fraction: of the pairs, held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.

    Raises:
      InputError: the file, its keys, shapes or types are not these, or a value is not finite.
    """
    names = ("x", "pair")
    read = read_arrays(path, names, field="dataset.path")
    parts = [_images_or_features(path, *part) for part in zip(names, read, strict=True)]
    n, others = map(len, parts)
    if n != others:
        raise errors.InputError(
            f"dataset.path={path!r}: x has {n} rows and pair has {others}. Row i of one belongs to"
            " row i of the other, so that there must be as many."
        )
    flat = [_flat(x) for x in parts]
    inputs = np.zeros((2 * n, max(x.shape[1] for x in flat) + 1), np.float32)
    for which, x in enumerate(flat):
        inputs[which::2, : x.shape[1]] = x
        inputs[which::2, -1] = which
    labels = np.repeat(np.arange(n, dtype=np.int32), 2)
    split = splits.at_random(
        labels,
        by="class",
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    shapes = tuple(x.shape[1:] for x in parts)
    class_names = tuple(f"pair {i}" for i in range(n))
    return Dataset(inputs, labels, split, class_names, pair_shapes=shapes)


def _flat(x):
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    return rows / np.float32(255) if x.dtype == np.uint8 else rows


def _images_or_features(path, name, x):
    """An array of a file: images of uint8 as they are, features as float32."""
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return x
    if not (np.issubdtype(x.dtype, np.floating) and x.ndim == 2):
        raise errors.InputError(
            f"dataset.path={path!r}: {name} has shape {x.shape} and dtype {x.dtype}. It must"
            " be uint8 images [examples, height, width, 1 or 3] or float features"
            " [examples, features]."
        )
    with np.errstate(over="ignore"):  # what float32 does not hold is infinite, and said to be
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise errors.InputError(
            f"dataset.path={path!r}: {len(rows)} rows of {name} have NaN or infinite values, the"
            f" first is row {rows[0]}. Remove or fill them."
        )
    return x


def read_arrays(path: str, names: Sequence[str], *, field: str) -> list[np.ndarray]:
    """Arrays of an .npz file, by name.

    Args:
      path: the file.
      names: of the arrays.
      field: what the file is called in messages.

    Raises:
      InputError: it cannot be read, or lacks one of them.
    """
    if not os.path.isfile(path):
        raise errors.InputError(f"{field}={path!r} is not a file. Give an .npz with {names}.")
    try:
        with zipfile.ZipFile(path) as file:
            present = sorted(name.removesuffix(".npy") for name in file.namelist())
            missing = sorted(set(names) - set(present))
            arrays = [_read_array(file, name) for name in names if name not in missing]
    except Exception as error:  # whatever damage makes numpy, zipfile and zlib raise
        raise errors.InputError(
            f"{field}={path!r} cannot be read as an .npz file: {error}"
        ) from error
    if missing:
        raise errors.InputError(f"{field}={path!r} lacks {missing}; it has the keys {present}.")
    return arrays


def _read_array(file, name):
    with file.open(f"{name}.npy") as member:
        # Without pickle: a file that someone shared must not be able to run code.
        array = np.lib.format.read_array(member, allow_pickle=False)
        # To the end, where its checksum is compared: numpy's own loader stops before it if the
        # damage makes an array smaller.
        if member.read(1):
            raise ValueError(f"{name} is followed by what is no part of it")
    return array
