"""Data sets: where they come from."""

import math
import os
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors, folders, splits
from triplet_jax.dataset import SPLITS as SPLITS
from triplet_jax.dataset import Dataset as Dataset
from triplet_jax.dataset import fingerprint as fingerprint
from triplet_jax.dataset import fingerprints as fingerprints
from triplet_jax.dataset import images_as_classes as images_as_classes
from triplet_jax.dataset import quarter_turns_as_classes as quarter_turns_as_classes
from triplet_jax.file_names import to_text
from triplet_jax.images import ImageForm, Images
from triplet_jax.splits import hold_out as hold_out
from triplet_jax.tfds import from_tfds as from_tfds


def digits(*, test_fraction: float, validation_fraction: float, seed: int) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits". The ten
    classes are the same in every split; images are held out.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    split = splits.at_random(
        labels,
        by="image",
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    return Dataset(images, labels, split, tuple(map(str, range(10))))


def folder(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    bad_images: str,
    class_level: int = 1,
) -> Dataset:
    """A folder with a folder of images for every class, listed by `folders.find`.

    Args:
      path: the folder; `path/cat/1.jpg` is an image of the class "cat".
      form: what every image is brought to.
      split_by: "image" holds out images of every class, "class" whole classes.
      test_fraction: held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.
      bad_images: "refuse" or "skip" files that are no readable image.
      class_level: how many folders make the class; with 2, `path/cat/tabby/1.jpg` is of the class
        "cat/tabby".

    Raises:
      InputError: there is no such folder, it holds no class folders with images, a file cannot be
        read as an image, or a link leads nowhere.
    """
    errors.check_known("dataset.split_by", split_by, ("image", "class"))
    root = pathlib.Path(path)
    if not path or not root.is_dir():
        raise errors.InputError(
            f"dataset.path={path!r} is not a folder. Give a folder that holds one folder of"
            " JPEG or PNG images for every class."
        )
    listing = folders.in_classes(folders.find(root, folders.Layout(class_level=class_level)))
    listing = folders.only_images(listing, bad_images, field="dataset.bad_images")
    if not listing.files:
        raise errors.InputError(
            f"dataset.path={path!r} holds no images in class folders. Put the images of every"
            f" class into a folder of its own, such as {root / 'cat' / '1.jpg'}."
        )
    names, labels = np.unique([file.label for file in listing.files], return_inverse=True)
    labels = labels.astype(np.int32)
    split = splits.at_random(
        labels,
        by=split_by,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    notes = (f"passed over in {to_text(path)}:\n{listing.report}",) if listing.report else ()
    encoded = Images([str(file) for file in listing.paths], form)
    return Dataset(
        encoded,
        labels,
        split,
        tuple(map(str, names)),
        notes=notes,
        names=np.array([to_text(str(file.relative_to(root))) for file in listing.paths]),
    )


def arrays(
    path: str, *, split_by: str, test_fraction: float, validation_fraction: float, seed: int
) -> Dataset:
    """An .npz file with `x`, uint8 images or float features, and `y`, integer labels.

    Args:
      path: the file. `x` is `[examples, height, width, channels]` of uint8, with 1 or 3
        channels, or `[examples, features]` of floats; `y` is `[examples]`.
      split_by: "image" holds out examples of every class, "class" whole classes.
      test_fraction: held out for the test.
      validation_fraction: held out for validation.
      seed: of the choice.

    Raises:
      InputError: the file, its keys, shapes or types are not these, or a value is not finite.
    """
    errors.check_known("dataset.split_by", split_by, ("image", "class"))
    x, y = read_arrays(path, ("x", "y"), field="dataset.path")
    x = _images_or_features(path, "x", x)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or len(y) != len(x):
        raise errors.InputError(
            f"dataset.path={path!r}: y has shape {y.shape} and dtype {y.dtype}. It must be"
            f" integers [examples], one for each of the {len(x)} rows of x."
        )
    names, labels = np.unique(y, return_inverse=True)
    labels = labels.astype(np.int32)
    split = splits.at_random(
        labels,
        by=split_by,
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    return Dataset(x, labels, split, tuple(map(str, names)))


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
