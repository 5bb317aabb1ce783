"""Data sets in .npz files of arrays: examples with labels, or examples in pairs."""

import math
import os

import numpy as np
from jaxtyping import Float, Shaped

from triplet_jax import errors
from triplet_jax.data import named_splits, splits
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.splits import HeldOut
from triplet_jax.runs import files


def arrays(path: str, *, split_by: str, held_out: HeldOut) -> Dataset:
    """Reads a data set from an .npz file with the arrays `x`, the inputs, and `y`, the labels.

        np.savez("wine.npz", x=features, y=labels)
        held_out = data.HeldOut(test=0.2, validation=0.1, seed=0)
        wine = data.arrays("wine.npz", split_by="image", held_out=held_out)

    Args:
      path: the file. `x` is images `[examples, height, width, channels]` of uint8, with 1 or 3
        channels, or features `[examples, features]` of floats. `y` is `[examples]`, of integers,
        strings or booleans, which are only compared. It may have more arrays `[examples]`: `group`,
        the session or camera of each, `category`, the group of each class, and `split`.
      split_by: what is held out: "image" examples of every class, "class" whole classes, "group"
        whole groups of examples by the array `group`, "official" what the array `split` says by
        the names in `named_splits.SPLITS`; where these are "query" and "gallery", queries search
        the gallery.
      held_out: how much is held out. For "official" only the share of validation counts, and only
        if no example is for validation.

    Raises:
      InputError: the file, its keys, shapes or types are not these, a value is not finite, no group
        can be held out, a class has two categories, or `held_out` is refused.
    """
    errors.check_known("split_by", split_by, ("image", "class", "group", "official"))
    needed = ["x", "y", *{"group": ["group"], "official": ["split"]}.get(split_by, [])]
    present = files.names_of_arrays(path) if os.path.isfile(path) else []
    also = [name for name in ("group", "category") if name in present and name not in needed]
    x, *of_examples = files.read_arrays(path, [*needed, *also])
    x = _images_or_features(path, "x", x)
    known = {
        name: _one_for_each(path, name, values, x)
        for name, values in zip([*needed, *also][1:], of_examples, strict=True)
    }
    class_names, labels = np.unique(known["y"], return_inverse=True)
    labels = labels.astype(np.int32)
    notes, is_query, source = [], None, f"path={path!r}"
    if split_by == "official":
        names = known["split"].astype(str)
        split = named_splits.official(source, names, labels, held_out)
        is_query = named_splits.queries_of(names)
    elif split_by == "group":
        split = splits.of_groups(labels, known["group"], held_out)
        notes = splits.notes_on_groups(split, labels, known["group"], held_out, source=source)
    else:
        split = splits.at_random(labels, held_out, by=split_by)
    return Dataset(
        x,
        labels,
        split,
        tuple(map(str, class_names)),
        groups=named_splits.categories(source, known.get("category"), labels, class_names),
        notes=tuple(notes),
        sessions=known.get("group"),
        is_query=is_query,
    )


def _one_for_each(
    path: str, name: str, values: np.ndarray, x: np.ndarray
) -> Shaped[np.ndarray, "examples"]:
    """Checks an array that holds one value for each row of `x`; bytes become text."""
    if values.dtype.kind not in "iubUS" or values.shape != (len(x),):
        raise errors.InputError(
            f"path={path!r}: {name} has shape {values.shape} and dtype {values.dtype}, and"
            f" x has shape {x.shape}. {name} must be integers, strings or booleans of shape"
            f" ({len(x)},), one for each of the {len(x)} rows of x."
        )
    return (
        np.char.decode(values, "utf-8", "backslashreplace") if values.dtype.kind == "S" else values
    )


def pairs(path: str, *, held_out: HeldOut) -> Dataset:
    """Reads pairs from an .npz file: row i of its array `x` belongs to row i of its array `pair`.

    Each pair is a class of two examples, `2i` from `x` and `2i + 1` from `pair`, and is in one
    split. All inputs get one shape: they are flattened, images are scaled to [0, 1], the shorter
    ones are filled with zeros, and a last value is 0 for a row of `x` and 1 for a row of `pair`.

    Args:
      path: the file. Each array is as `x` in `arrays`; their shapes may differ.
      held_out: the shares of the pairs to hold out.

    Raises:
      InputError: the file, its keys, shapes or types are not these, a value is not finite, or
        `held_out` is refused.
    """
    names = ("x", "pair")
    read = files.read_arrays(path, names)
    parts = [_images_or_features(path, *part) for part in zip(names, read, strict=True)]
    n, others = map(len, parts)
    if n != others:
        raise errors.InputError(
            f"path={path!r}: x has {n} rows and pair has {others}. Row i of one belongs to"
            " row i of the other, so they must have as many rows."
        )
    flat = [_flat(x) for x in parts]
    inputs = np.zeros((2 * n, max(x.shape[1] for x in flat) + 1), np.float32)
    for which, x in enumerate(flat):
        inputs[which::2, : x.shape[1]] = x
        inputs[which::2, -1] = which
    labels = np.repeat(np.arange(n, dtype=np.int32), 2)
    split = splits.at_random(labels, held_out, by="class")
    shapes = tuple(x.shape[1:] for x in parts)
    class_names = tuple(f"pair {i}" for i in range(n))
    return Dataset(inputs, labels, split, class_names, pair_shapes=shapes)


def _flat(x: Shaped[np.ndarray, "examples ..."]) -> Float[np.ndarray, "examples values"]:
    rows = x.reshape(len(x), math.prod(x.shape[1:]))
    return rows / np.float32(255) if x.dtype == np.uint8 else rows


def _images_or_features(path: str, name: str, x: np.ndarray) -> Shaped[np.ndarray, "examples ..."]:
    """Checks an array of inputs: images stay uint8, features become float32."""
    if x.ndim and not len(x):
        raise errors.InputError(f"path={path!r}: {name} has no rows. Write one for each example.")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[3] in (1, 3):
        return x
    if not (np.issubdtype(x.dtype, np.floating) and x.ndim == 2):
        raise errors.InputError(
            f"path={path!r}: {name} has shape {x.shape} and dtype {x.dtype}. It must"
            " be uint8 images [examples, height, width, 1 or 3] or float features"
            " [examples, features]."
        )
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite, and is refused
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        rows = np.flatnonzero(~np.isfinite(x).all(axis=1))
        raise errors.InputError(
            f"path={path!r}: {len(rows)} rows of {name} have NaN or infinite values; the"
            f" first is row {rows[0]}. Remove or fill them."
        )
    return x
