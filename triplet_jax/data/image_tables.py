"""A data set from a table: a row for every image, with its class and what else is known of it."""

import collections
import dataclasses
import pathlib

import numpy as np
from jaxtyping import Int, Shaped

from triplet_jax import errors
from triplet_jax.data import decoding, images, named_splits, splits, table_files
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.file_names import some
from triplet_jax.data.image_folders import SPLIT_BY
from triplet_jax.data.images import ImageForm, Images
from triplet_jax.data.splits import HeldOut


@dataclasses.dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Args:
      path: of the image files.
      label: of the classes, as text or as numbers.
      split: of the splits, for `split_by="official"`; `named_splits.SPLITS` has the names.
      group: of the sessions, cameras or drawers, which are read where the table has them, and
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
    label: str = "label"
    split: str = "split"
    group: str = "group"
    category: str = ""
    box: tuple[str, ...] = ()
    ignore: tuple[tuple[str, str], ...] = ()


def table(
    path: str,
    *,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
    root: str = "",
    columns: Columns | None = None,
) -> Dataset:
    """A data set of the images that a table lists.

        fruit = data.table(
            "fruit.csv",
            form=images.ImageForm(size=64, channels=3),
            split_by="image",
            held_out=data.HeldOut(test=0.2, validation=0.1, seed=0),
            bad_images="refuse",
        )

    Args:
      path: a .csv or .tsv file in UTF-8 with a row of column names, or a .parquet file, for which
        pyarrow must be installed.
      form: what every image is brought to when it is read.
      split_by: what is held out: "image" images of every class, "class" whole classes, "group"
        whole groups of images, "official" what the column of splits says.
      held_out: how much is held out. For "official" only the share of validation counts, and only
        if no row is for validation: `splits.with_test` then holds it out of training.
      bad_images: whether to "refuse" or to "skip" files that cannot be read as images.
      root: the folder that paths are relative to; "" for that of the table.
      columns: the names of the columns; None for the usual ones.

    Raises:
      InputError: the file cannot be read, lacks a column, or has an empty cell in one that is used;
        a file is listed twice, is not there, or cannot be read as an image; a class has two
        categories; or the splits do not fit `split_by`.
    """
    errors.check_known("split_by", split_by, SPLIT_BY)
    columns = columns or Columns()
    if len(columns.box) not in (0, 4):
        raise errors.InputError(
            f"box={columns.box!r} must name four columns: of left, top, right and bottom."
        )
    used = [name for name in (columns.path, columns.label, columns.category) if name]
    used += columns.box
    used += [name for pair in columns.ignore for name in pair]
    used += {"official": [columns.split], "group": [columns.group]}.get(split_by, [])
    cells = table_files.read(path, used, [columns.group])
    rows = Rows(
        cells[columns.path],
        cells[columns.label],
        splits=cells[columns.split] if split_by == "official" else None,
        groups=cells.get(columns.group),
        categories=cells.get(columns.category),
        boxes=_boxes(path, [cells[name] for name in columns.box]),
    )
    if columns.ignore:
        asking, asked = table_files.numbered(cells, columns.ignore)
        rows = dataclasses.replace(rows, query_groups=asking, reference_groups=asked)
    return of_rows(
        rows,
        source=path,
        root=pathlib.Path(root or pathlib.Path(path).parent),
        form=form,
        split_by=split_by,
        held_out=held_out,
        bad_images=bad_images,
    )


def list_images(
    path: str,
    *,
    bad_images: str,
    max_pixels: int = decoding.MAX_PIXELS,
    root: str = "",
    columns: Columns | None = None,
) -> tuple[list[pathlib.Path], list[str]]:
    """The image files that a table lists, each once, and their classes.

    Args:
      path: as in `table`.
      bad_images: as in `table`.
      max_pixels: an image of more pixels cannot be read.
      root: as in `table`.
      columns: the names of the columns, of which only that of the paths is needed.

    Returns:
      The files, and the class of each; "" for all where the table has no column of classes.

    Raises:
      InputError: as in `table`.
    """
    columns = columns or Columns()
    cells = table_files.read(path, [columns.path], [columns.label])
    names = cells[columns.path]
    top = pathlib.Path(root or pathlib.Path(path).parent)
    _check_twice(path, names)
    kept = _kept(path, top, names, bad_images, max_pixels)
    labels = cells.get(columns.label, [""] * len(names))
    return [top / names[row] for row in kept], [labels[row] for row in kept]


@dataclasses.dataclass(frozen=True)
class Rows:
    """What is known of the images of a data set, each a list with one value for every image.

    Args:
      paths: the files.
      labels: their classes.
      splits: the names of their splits, of those in `named_splits.SPLITS`.
      groups: their sessions, cameras or drawers.
      categories: the groups of their classes.
      boxes: the part of each that is read, (left, top, right, bottom) in pixels.
      query_groups: what a query compares with `reference_groups`, as in `Dataset`.
      reference_groups: what is known of it as a reference.
    """

    paths: list[str]
    labels: list[str]
    splits: list[str] | None = None
    groups: list[str] | None = None
    categories: list[str] | None = None
    boxes: list[tuple[int, ...]] | None = None
    query_groups: Int[np.ndarray, "rows"] | None = None
    reference_groups: Int[np.ndarray, "rows"] | None = None

    @property
    def names(self) -> list[str]:
        """The files, with their boxes where they have any."""
        if self.boxes is None:
            return self.paths
        pairs = zip(self.paths, self.boxes, strict=True)
        return [f"{path}#{','.join(map(str, box))}" for path, box in pairs]

    def take(self, chosen: Int[np.ndarray, "rows"]) -> dict[str, Shaped[np.ndarray, "rows"]]:
        """Some rows of every list that there is, by the name of the list."""
        there = {name: x for name, x in vars(self).items() if x is not None}
        there["names"] = self.names
        return {name: np.array(x)[chosen] for name, x in there.items()}


def of_rows(
    rows: Rows,
    *,
    source: str,
    root: pathlib.Path,
    form: ImageForm,
    split_by: str,
    held_out: HeldOut,
    bad_images: str,
) -> Dataset:
    """A data set of images of which each is known by a row.

    Args:
      rows: what is known of them.
      source: what messages call the origin of the rows.
      root: the folder that paths are relative to.
      form: what every image is brought to when it is read.
      split_by: as in `table`.
      held_out: as in `table`.
      bad_images: as in `table`.

    Raises:
      InputError: as in `table`.
    """
    _check_twice(source, rows.names)
    known = rows.take(_kept(source, root, rows.paths, bad_images, form.max_pixels))
    for name, box in zip(known["paths"], known.get("boxes", ()), strict=False):
        file = str(root / name)
        images.inside(box, decoding.upright_size(file, max_pixels=form.max_pixels), file)
    class_names, labels = np.unique(known["labels"], return_inverse=True)
    labels = labels.astype(np.int32)
    notes, is_query = [], None
    if split_by == "official":
        split = named_splits.official(f"path={source!r}", known["splits"], labels, held_out)
        is_query = named_splits.queries_of(known["splits"])
    elif split_by == "group":
        split = splits.of_groups(labels, known["groups"], held_out)
        notes += splits.notes_on_groups(
            split, labels, known["groups"], held_out, source=f"path={source!r}"
        )
    else:
        split = splits.at_random(labels, held_out, by=split_by)
    return Dataset(
        Images([str(root / name) for name in known["paths"]], form, boxes=known.get("boxes")),
        labels,
        split,
        tuple(map(str, class_names)),
        groups=named_splits.categories(
            f"path={source!r}", known.get("categories"), labels, class_names
        ),
        notes=tuple(notes),
        names=known["names"],
        sessions=known.get("groups"),
        is_query=is_query,
        query_groups=known.get("query_groups"),
        reference_groups=known.get("reference_groups"),
    )


def _boxes(path: str, columns: list[list[str]]) -> list[tuple[int, ...]] | None:
    """The boxes, from the cells of their four columns; None without columns."""
    if not columns:
        return None
    boxes = list(zip(*columns, strict=True))
    for number, cells in enumerate(boxes, 1):
        if not all(cell.isdecimal() for cell in cells):
            raise errors.InputError(
                f"path={path!r}: row {number} has the box {cells}, and a box is of whole numbers of"
                " pixels."
            )
    return [tuple(map(int, cells)) for cells in boxes]


def _check_twice(path: str, names: list[str]) -> None:
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise errors.InputError(
            f"path={path!r} lists {len(twice)} files more than once, such as {twice[0]!r}: give"
            " each image one row."
        )


def _kept(
    path: str, top: pathlib.Path, names: list[str], bad_images: str, max_pixels: int
) -> Int[np.ndarray, "rows"]:
    """The rows whose files are images."""
    files = [top / name for name in names]
    lost = [str(file) for file in files if not file.is_file()]
    if len(lost) == len(files) or (lost and bad_images == "refuse"):
        raise errors.InputError(
            f"path={path!r}: {len(lost)} of {len(files)} files are not there: {some(lost)}. Paths"
            f" are relative to {str(top)!r}: correct them or the root, put the files back, or set"
            " bad_images='skip' to leave them out."
        )
    there = [file for file in dict.fromkeys(files) if file.is_file()]
    readable = set(images.keep_images(there, bad_images, max_pixels=max_pixels))
    return np.array([row for row, file in enumerate(files) if file in readable], int)
