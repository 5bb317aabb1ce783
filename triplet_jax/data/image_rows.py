"""A data set of images, each described by a row: its class, and what else is known of it."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from triplet_jax import errors
from triplet_jax.data import decoding, image_checks, images, named_splits, splits, table_files
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some
from triplet_jax.data.image_checks import Faults
from triplet_jax.data.images import ImageForm, Images
from triplet_jax.data.splits import HeldOut
from triplet_jax.data.table_files import Column
from triplet_jax.runs import files


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of the columns that say what is known of each image.

    Args:
      path: of the image files, in a table.
      image: of the images themselves, in a data set that holds them; "" to find it.
      label: of the classes, as text or as numbers.
      split: of the splits, for `split_by="official"`; `named_splits.SPLITS` has the names.
      group: of the sessions, cameras or drawers, which are read where there is this column, and
        needed for `split_by="group"`.
      category: of the groups of classes, such as alphabets or kinds of fruit, for batches and
        wrong labels within a group; "" for none.
      box: four columns, of the left, top, right and bottom edge of the part of the upright picture
        that is read, in whole pixels from the top left; () for whole pictures. A file may then
        have several rows.
      ignore: pairs of columns, of a query and of a reference: in retrieval, a query leaves out the
        references of its class that agree with it in every pair; () for none.
    """

    path: str = "path"
    image: str = ""
    label: str = "label"
    split: str = "split"
    group: str = "group"
    category: str = ""
    box: tuple[str, ...] = ()
    ignore: tuple[tuple[str, str], ...] = ()

    def needed(self, split_by: str) -> list[str]:
        """The columns that must be there, beside those of the images, the classes and the split."""
        names = [self.category, *(name for pair in self.ignore for name in pair)]
        if split_by == "group":
            names.append(self.group)
        return list(dict.fromkeys(filter(None, names)))


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is known of the images of a data set, each with one value for every image.

    Args:
      paths: the files; None for images that have no files of their own.
      labels: their classes.
      splits: the names of their splits, of those in `named_splits.SPLITS`.
      groups: their sessions, cameras or drawers.
      categories: the groups of their classes.
      boxes: the part of each that is read, (left, top, right, bottom) in pixels.
      query_groups: what a query compares with `reference_groups`, as in `Dataset`.
      reference_groups: what is known of it as a reference.
    """

    paths: Column | None
    labels: Column
    splits: Column | None = None
    groups: Column | None = None
    categories: Column | None = None
    boxes: Sequence[tuple[int, ...]] | Int[np.ndarray, "rows 4"] | None = None
    query_groups: Int[np.ndarray, "rows"] | None = None
    reference_groups: Int[np.ndarray, "rows"] | None = None

    @classmethod
    def of_cells(
        cls, cells: Mapping[str, Column], columns: Columns, *, paths: Column | None, split_by: str
    ) -> "Rows":
        """Makes the rows from columns.

        Args:
          cells: the columns by their names, with those of the classes and of `columns.needed`, and
            for `split_by="official"` that of the splits.
          columns: their names.
          paths: the files, if there are any.
          split_by: what is held out.
        """
        asking, asked = None, None
        if columns.ignore:
            asking, asked = table_files.numbered(cells, columns.ignore)
        return cls(
            paths,
            cells[columns.label],
            splits=cells[columns.split] if split_by == "official" else None,
            groups=cells.get(columns.group),
            categories=cells[columns.category] if columns.category else None,
            query_groups=asking,
            reference_groups=asked,
        )

    @property
    def names(self) -> list[str]:
        """The files, with their boxes where they have any."""
        if self.boxes is None:
            return list(self.paths)
        pairs = zip(self.paths, self.boxes, strict=True)
        return [f"{path}#{','.join(map(str, box))}" for path, box in pairs]

    def take(self, chosen: Int[np.ndarray, "rows"]) -> "Rows":
        """Some of the rows, as arrays."""
        there = {name: x for name, x in vars(self).items() if x is not None}
        return dataclasses.replace(self, **{name: np.array(x)[chosen] for name, x in there.items()})


def of_files(
    rows: Rows,
    *,
    source: str,
    root: pathlib.Path,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
) -> Dataset:
    """A data set of image files.

    Args:
      rows: what is known of them.
      source: what messages call the origin of the rows.
      root: the folder that paths are relative to.
      form: what every image is brought to when it is read.
      split_by: as in `image_tables.table`.
      held_out: as in `image_tables.table`.
      bad_images: as in `image_tables.table`.

    Raises:
      InputError: as in `image_tables.table`.
    """
    check_twice(source, root, rows.paths, rows.boxes)
    chosen = kept(source, root, rows.paths, bad_images, form.max_pixels)
    left_out = np.delete(rows.names, chosen).tolist()
    rows = rows.take(chosen)
    places = [str(root / name) for name in rows.paths]
    if rows.boxes is not None:
        for place, box in zip(places, rows.boxes, strict=True):
            images.inside(box, decoding.upright_size(place, max_pixels=form.max_pixels), place)
    inputs = Images(places, form, boxes=rows.boxes)
    found = of_images(rows, inputs, source=source, split_by=split_by, held_out=held_out)
    return _with_note(found, source, left_out)


def of_encoded(
    rows: Rows,
    encoded: Sequence[bytes | str],
    faults: Faults,
    *,
    source: str,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
) -> Dataset:
    """A data set of images that have no files of their own.

    Args:
      rows: what is known of them.
      encoded: the images, each as `ImageForm.read` takes it.
      faults: those of them that cannot be read.
      source: what messages call their origin.
      form: what every image is brought to when it is read.
      split_by: as in `image_tables.table`.
      held_out: as in `image_tables.table`.
      bad_images: as in `image_tables.table`.

    Raises:
      InputError: an image cannot be read, or as in `of_images`.
    """
    faults.check(len(encoded), bad_images)
    kept = np.delete(np.arange(len(encoded)), faults.positions)
    found = of_images(
        rows.take(kept),
        Images(encoded, form, kept),
        source=source,
        split_by=split_by,
        held_out=held_out,
    )
    return _with_note(found, source, faults.names.tolist())


def _with_note(found: Dataset, source: str, left_out: Sequence[str]) -> Dataset:
    """Notes which images were left out, if there are any."""
    if not left_out:
        return found
    note = f"passed over in {source}: {len(left_out)} images: {some(left_out)}"
    return dataclasses.replace(found, notes=(*found.notes, note))


def of_images(
    rows: Rows, inputs: Images, *, source: str, split_by: str, held_out: HeldOut
) -> Dataset:
    """A data set of images that are known to be readable.

    Args:
      rows: what is known of them, as arrays.
      inputs: the images.
      source: what messages call their origin.
      split_by: as in `image_tables.table`.
      held_out: as in `image_tables.table`.

    Raises:
      InputError: there are no images, a class has two categories, or the splits do not fit
        `split_by`.
    """
    source = f"path={source!r}"
    if not len(inputs):
        raise errors.InputError(
            f"{source} holds no image that can be read. Put readable images there, or give another"
            " place."
        )
    class_names, labels = np.unique(rows.labels, return_inverse=True)
    labels = labels.astype(np.int32)
    notes, is_query = [], None
    if split_by == "official":
        split = named_splits.official(source, rows.splits, labels, held_out)
        is_query = named_splits.queries_of(rows.splits)
    elif split_by == "group":
        split = splits.of_groups(labels, rows.groups, held_out)
        notes += splits.notes_on_groups(split, labels, rows.groups, held_out, source=source)
    else:
        split = splits.at_random(labels, held_out, by=split_by)
    return Dataset(
        inputs,
        labels,
        split,
        tuple(map(str, class_names)),
        groups=named_splits.categories(source, rows.categories, labels, class_names),
        notes=tuple(notes),
        names=None if rows.paths is None else np.array(rows.names),
        sessions=rows.groups,
        is_query=is_query,
        query_groups=rows.query_groups,
        reference_groups=rows.reference_groups,
    )


def check_twice(
    path: str,
    top: pathlib.Path,
    names: Sequence[str],
    boxes: Sequence[tuple[int, ...]] | Int[np.ndarray, "rows 4"] | None = None,
) -> None:
    """Refuses a table that lists an image twice, even by two ways of writing its path.

    Args:
      path: the table, for messages.
      top: the folder that names are relative to.
      names: the file of each row.
      boxes: the part of each that is read; None for whole images.

    Raises:
      InputError: with the name of one.
    """
    written = collections.defaultdict(list)
    for row, name in enumerate(names):
        box = None if boxes is None else tuple(boxes[row])
        written[os.path.normpath(top / name), box].append(name)
    twice = [names for names in written.values() if len(names) > 1]
    if twice:
        raise errors.InputError(
            f"path={path!r} lists {len(twice)} files more than once, such as"
            f" {some(list(dict.fromkeys(twice[0])))}: give each image one row."
        )


def kept(
    path: str, top: pathlib.Path, names: Sequence[str], bad_images: str, max_pixels: int
) -> Int[np.ndarray, "rows"]:
    """The rows whose files are images.

    Args:
      path: the table, for messages.
      top: the folder that names are relative to.
      names: the file of each row.
      bad_images: as in `image_tables.table`.
      max_pixels: as in `image_tables.list_images`.

    Raises:
      InputError: as in `image_tables.table`.
    """
    places = [top / name for name in names]
    there = {place for place in places if files.is_file(place)}
    lost = [str(place) for place in places if place not in there]
    if len(lost) == len(places) or (lost and bad_images == "refuse"):
        raise errors.InputError(
            f"path={path!r}: {len(lost)} of {len(places)} files are not there: {some(lost)}. Paths"
            f" are relative to {str(top)!r}: correct them or the root, put the files back, or set"
            " bad_images='skip' to leave them out."
        )
    tried = [place for place in dict.fromkeys(places) if place in there]
    readable = set(image_checks.keep_images(tried, bad_images, max_pixels=max_pixels))
    return np.array([row for row, place in enumerate(places) if place in readable], int)
