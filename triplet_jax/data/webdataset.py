"""A data set from tar shards in the layout of WebDataset, read at random by an index of them.

https://github.com/webdataset/webdataset says what the layout is. Shards are made to be read from
start to end, but a batch of P classes needs its images from anywhere. So one pass over the shards
notes where every image begins; the images stay in the shards.
"""

import collections
import dataclasses
import glob
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors
from triplet_jax.data import image_rows, kept_arrays, named_splits, shard_samples
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some
from triplet_jax.data.image_checks import Faults
from triplet_jax.data.image_folders import SPLIT_BY
from triplet_jax.data.image_rows import Columns, Rows
from triplet_jax.data.images import ImageForm
from triplet_jax.data.kept_arrays import Arrays
from triplet_jax.data.shard_samples import CELL, Plan
from triplet_jax.data.splits import HeldOut
from triplet_jax.data.tar_members import Pieces

# Counted up when an index comes to hold something else.
_VERSION = 1
_SHARD = re.compile(r"\.(tar|tgz|tar\.(gz|bz2|xz|zst))$")


def from_webdataset(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
    columns: Columns | None = None,
    index_dir: str = "",
) -> Dataset:
    """A data set of the images in tar shards.

    A sample is a series of successive members whose names are equal up to the first dot of the
    file's name: `cat/0001.jpg`, `cat/0001.cls` and `cat/0001.json`. Its class is the column
    `columns.label` of its .json, or else what its .cls says, or else its folder; all samples have
    it in the same place as the first. Its split is the column `columns.split` of its .json, or else
    the one that the name of its shard holds as a word, as in `train-0001.tar` or `test/0001.tar`.
    The other columns are those of its .json.

        birds = data.from_webdataset(
            "birds/*.tar",
            form=images.ImageForm(size=64, channels=3),
            split_by="class",
            held_out=data.HeldOut(test=0.2, validation=0.1, seed=0),
            bad_images="skip",
        )

    Args:
      path: a folder of .tar files, one such file, or a pattern of their names with `*`.
      form: what every image is brought to when it is read.
      split_by: as in `data.table`.
      held_out: as in `data.table`.
      bad_images: whether to "refuse" or to "skip" images that cannot be read.
      columns: the names of the columns; None for the usual ones. `columns.image` is what follows
        the key in the name of the image, such as "left.png"; "" for the only image of each sample.
      index_dir: the folder that keeps the index of the shards, by their names, sizes and times, so
        that the next call starts at once; "" to keep none.

    Raises:
      InputError: a shard is compressed, damaged or cut short; a sample has no image, several, or
        no class; a key comes twice in a shard; an image cannot be read; or the splits do not fit
        `split_by`.
    """
    errors.check_known("split_by", split_by, SPLIT_BY)
    columns = columns or Columns()
    shards = _shards(path)
    plan = shard_samples.plan_of(shards[0], columns, split_by)
    about = {
        "version": _VERSION,
        "shards": kept_arrays.states(shards),
        "plan": dataclasses.asdict(plan),
        "form": [form.rules, form.max_pixels],
    }
    index = kept_arrays.find(
        index_dir,
        about,
        lambda: _index(shards, plan, form.max_pixels),
        lambda kept: _renewed(kept, shards, form.max_pixels),
    )
    cells = {name.removeprefix(CELL): x for name, x in index.items() if name.startswith(CELL)}
    if split_by == "official" and columns.split not in cells:
        cells[columns.split] = _named_splits(path, shards)[index["shard"]]
    return image_rows.of_encoded(
        Rows.of_cells(cells, columns, paths=None, split_by=split_by),
        _pieces(index, shards),
        _faults(index),
        source=path,
        form=form,
        split_by=split_by,
        held_out=held_out,
        bad_images=bad_images,
    )


# -- shards ------------------------------------------------------------------------------


def _shards(path: str) -> list[str]:
    """The shards at a path, sorted."""
    place = pathlib.Path(path)
    if path and place.is_dir():
        found = [str(file) for file in place.rglob("*") if file.is_file()]
    else:
        found = [path] if path and place.is_file() else glob.glob(path)
    shards = sorted(file for file in found if _SHARD.search(file.lower()))
    if not shards:
        braces = " Write * in place of {...}." if "{" in path else ""
        raise errors.InputError(
            f"path={path!r} holds no .tar files. Give a folder of them, one of them, or a pattern"
            f" such as 'shards/train-*.tar'.{braces}"
        )
    return shards


def _named_splits(path: str, shards: Sequence[str]) -> np.ndarray:
    """The name of the split of each shard, a word of its name."""
    top = path if pathlib.Path(path).is_dir() else pathlib.Path(path).parent
    names = []
    for shard in shards:
        inside = pathlib.Path(shard)
        inside = inside.relative_to(top) if inside.is_relative_to(top) else inside
        words = re.split("[^a-z]+", str(inside).lower())
        found = sorted({word for word in words if word in named_splits.SPLITS})
        if len(found) != 1:
            raise errors.InputError(
                f"path={path!r}: the name of the shard {str(inside)!r} must hold the split as one"
                f" word, as in train-0001.tar, and has {some(found) or 'none'}. Rename it, put a"
                " split into each .json, or set split_by='image' or 'class'."
            )
        names += found
    return np.array(names)


# -- the index ---------------------------------------------------------------------------


def _index(shards: Sequence[str], plan: Plan, max_pixels: int) -> Arrays:
    """Where each image is, what is known of it, and which of them cannot be read."""
    found: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    for number, shard in enumerate(shards):
        columns = shard_samples.read(shard, plan)
        found["shard"].append(np.full(len(columns["start"]), number, np.int32))
        for name, values in columns.items():
            found[name].append(np.array(values))
    index = {name: np.concatenate(parts) for name, parts in found.items()}
    keys = index.pop("key")
    faults = Faults.of(
        _pieces(index, shards), lambda i: f"{shards[index['shard'][i]]}: {keys[i]}", max_pixels
    )
    return _with_faults(index, faults)


def _renewed(kept: Arrays, shards: Sequence[str], max_pixels: int) -> Arrays:
    """A kept index, whose images that could not be read are tried again."""
    return _with_faults(kept, _faults(kept).tried_again(_pieces(kept, shards), max_pixels))


def _pieces(index: Arrays, shards: Sequence[str]) -> Pieces:
    return Pieces(shards, index["shard"], index["start"], index["size"])


def _faults(index: Arrays) -> Faults:
    return Faults(index["bad"], index["bad_names"], index["reasons"])


def _with_faults(index: Arrays, faults: Faults) -> Arrays:
    return index | {"bad": faults.positions, "bad_names": faults.names, "reasons": faults.reasons}
