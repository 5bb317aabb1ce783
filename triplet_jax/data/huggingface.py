"""A data set that the package `datasets` of Hugging Face opens, read row by row from its files."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from triplet_jax import errors
from triplet_jax.data import image_rows, kept_arrays, named_splits, table_files
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some
from triplet_jax.data.image_checks import Faults
from triplet_jax.data.image_folders import SPLIT_BY
from triplet_jax.data.image_rows import Columns, Rows
from triplet_jax.data.images import ImageForm
from triplet_jax.data.kept_arrays import Arrays
from triplet_jax.data.splits import HeldOut

# Counted up when what is kept comes to mean something else.
_VERSION = 1
_ON_THE_HUB = re.compile(r"([\w-][\w.-]*(?:/[\w.-]+)?)(?::([\w.-]+))?", re.ASCII)


def from_huggingface(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
    columns: Columns | None = None,
    train_split: str = "train",
    validation_split: str = "",
    test_split: str = "test",
    index_dir: str = "",
) -> Dataset:
    """A data set of images that the package `datasets` opens.

    The images stay in Arrow files, which are mapped into memory, so that any of them is read at
    once and all of them need no memory. What is stored otherwise, as in Parquet, `datasets` brings
    to Arrow in its cache, once.

        digits = data.from_huggingface(
            "digits/data",
            form=images.ImageForm(size=28, channels=1),
            split_by="official",
            held_out=data.HeldOut(test=0.0, validation=0.1, seed=0),
            bad_images="refuse",
        )

    Args:
      path: a folder of Parquet files with images, one such file, a folder that `save_to_disk`
        wrote, or any other folder that `datasets.load_dataset` takes; or the name of a data set on
        the Hub or in the cache, such as "ylecun/mnist" or, with a configuration,
        "owner/name:configuration".
      form: what every image is brought to when it is read.
      split_by: "official" keeps the splits named below; where none is named for validation,
        `splits.with_test` holds it out of training. "image", "class" and "group" join all splits
        that are named below, and hold out as in `data.table`.
      held_out: how much is held out. For "official" only the share of validation counts.
      bad_images: whether to "refuse" or to "skip" images that cannot be read.
      columns: the names of the columns; None for the usual ones. `columns.image` is that of the
        images; "" for the only one that holds images.
      train_split: the split for training; several are joined, as in "train+extra".
      validation_split: the split for validation; "" to hold it out of training.
      test_split: the split for the test.
      index_dir: the folder that keeps which images can be read, so that the next call tries only
        the others; "" to keep nothing.

    Raises:
      InputError: `datasets` is not installed or cannot open it; there is no such split or column;
        an image or a cell is missing; an image cannot be read; or the splits do not fit `split_by`.
    """
    errors.check_known("split_by", split_by, SPLIT_BY)
    columns = columns or Columns()
    opened = _open(path)
    wanted = {"train": train_split, "validation": validation_split, "test": test_split}
    roles = named_splits.roles(
        f"path={path!r}", list(opened), wanted, needs_all=split_by == "official"
    )
    parts = {split: opened[split] for split in roles}
    cells = _cells(path, parts, columns, split_by)
    sizes = list(map(len, parts.values()))
    if split_by == "official":
        cells[columns.split] = np.repeat(list(roles.values()), sizes)
    encoded = Encoded(parts, _image_column(path, parts, columns.image))
    return image_rows.of_encoded(
        Rows.of_cells(cells, columns, paths=None, split_by=split_by),
        encoded,
        _faults(encoded, parts, form, index_dir),
        source=path,
        form=form,
        split_by=split_by,
        held_out=held_out,
        bad_images=bad_images,
    )


# -- opening -----------------------------------------------------------------------------


def _open(path: str) -> dict[str, Any]:
    """The `datasets.Dataset` of every split."""
    try:
        import datasets
    except ImportError as error:
        raise errors.InputError(
            f"path={path!r} needs the package datasets: pip install 'triplet_jax[huggingface]'."
        ) from error
    place = pathlib.Path(path)
    named = _ON_THE_HUB.fullmatch(path)
    if not path or not (place.exists() or named):
        raise errors.InputError(
            f"path={path!r} is no folder or file, and no name of a data set on the Hub."
        )
    try:
        if any((place / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(path)
        elif place.is_file():
            found = datasets.load_dataset("parquet", data_files={"train": path})
        elif place.exists():
            found = datasets.load_dataset(path)
        else:
            found = datasets.load_dataset(named[1], named[2])
    except Exception as error:  # its builders raise many kinds
        errors.check_answers(error)
        why = error if error.__cause__ is None else error.__cause__
        raise errors.InputError(f"path={path!r} cannot be opened by datasets: {why}") from error
    return {"train": found} if isinstance(found, datasets.Dataset) else dict(found)


def _image_column(path: str, parts: dict[str, Any], wanted: str) -> str:
    import datasets

    def holds_images(feature):
        if isinstance(feature, datasets.Value):
            return feature.dtype in ("binary", "large_binary")
        return isinstance(feature, datasets.Image) or (
            isinstance(feature, dict) and "bytes" in feature
        )

    features = next(iter(parts.values())).features
    possible = [name for name, feature in features.items() if holds_images(feature)]
    found = [wanted] if wanted else possible
    if len(found) != 1 or found[0] not in possible:
        asked = (
            f"has no images in image={wanted!r}" if wanted else "does not say which is the image"
        )
        raise errors.InputError(
            f"path={path!r} {asked}: of its columns {some(list(features))}, {len(possible)} hold"
            f" images{': ' + some(possible) if possible else ''}. Name one of these by image=NAME."
        )
    return found[0]


# -- cells -------------------------------------------------------------------------------


def _cells(
    path: str, parts: dict[str, Any], columns: Columns, split_by: str
) -> dict[str, Shaped[np.ndarray, "rows"]]:
    """The columns that say what is known of the images."""
    features = next(iter(parts.values())).features
    names = dict.fromkeys([columns.label, *columns.needed(split_by)])
    if columns.group in features:
        names[columns.group] = None
    for split, part in parts.items():
        missing = [name for name in names if name not in part.features]
        if missing:
            raise errors.InputError(
                f"path={path!r} lacks the columns {missing}; its split {split!r} has"
                f" {some(list(part.features))}. Name the columns of this data set."
            )
    return {
        name: np.concatenate([_cells_of(path, split, parts[split], name) for split in parts])
        for name in names
    }


def _cells_of(path: str, split: str, part: Any, name: str) -> Shaped[np.ndarray, "rows"]:
    """A column of one split as text."""
    cells = part.select_columns([name]).with_format("arrow")[:].column(0)
    values = [cell for chunk in cells.iterchunks() for cell in chunk.to_pylist()]
    to_name = getattr(part.features[name], "int2str", None)
    absent = -1 if to_name else ""
    lost = [row for row, x in enumerate(values) if x == absent or table_files.is_missing(x)]
    if lost:
        raise errors.InputError(
            f"path={path!r}: {len(lost)} of {len(values)} rows of the split {split!r} have no"
            f" {name!r}, first row {lost[0]}. Fill it, remove these rows, or leave out the split."
        )
    if to_name:
        class_names = np.array(part.features[name].names, str)
        return class_names[np.array(values, np.int64)]
    return np.array([str(value) for value in values], str)


# -- images ------------------------------------------------------------------------------


class Encoded(Sequence):
    """The images of several splits as they are stored, one split after the other.

    Args:
      parts: the `datasets.Dataset` of every split.
      column: that of the images.
    """

    def __init__(self, parts: dict[str, Any], column: str):
        import datasets

        self.column, self._splits = column, list(parts)
        self._parts = [part.with_format(None).select_columns([column]) for part in parts.values()]
        if isinstance(self._parts[0].features[column], datasets.Image):
            stored = datasets.Image(decode=False)
            self._parts = [part.cast_column(column, stored) for part in self._parts]
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self):
        return int(self._ends[-1])

    def name(self, position: int) -> str:
        """What messages call an image."""
        which, row = self._place(position)
        return f"{self._splits[which]}, row {row}"

    def __getitem__(self, position: int) -> bytes | str:
        which, row = self._place(position)
        image = self._parts[which][row][self.column]
        if isinstance(image, dict):
            image = image["bytes"] if image["bytes"] is not None else image.get("path")
        return b"" if image is None else image  # empty bytes are found to be unreadable

    def _place(self, position: int) -> tuple[int, int]:
        which = int(np.searchsorted(self._ends, position, side="right"))
        return which, int(position - (self._ends[which - 1] if which else 0))


def _faults(encoded: Encoded, parts: dict[str, Any], form: ImageForm, index_dir: str) -> Faults:
    """The images that cannot be read, from an earlier call where nothing has changed since."""
    files = [cached["filename"] for part in parts.values() for cached in part.cache_files]
    about = {
        "version": _VERSION,
        "files": kept_arrays.states(files),
        "column": encoded.column,
        "splits": {split: len(part) for split, part in parts.items()},
        "form": [form.rules, form.max_pixels],
    }

    def compute() -> Arrays:
        return dataclasses.asdict(Faults.of(encoded, encoded.name, form.max_pixels))

    def renew(kept: Arrays) -> Arrays:
        return dataclasses.asdict(Faults(**kept).tried_again(encoded, form.max_pixels))

    return Faults(**kept_arrays.find(index_dir if files else "", about, compute, renew))
