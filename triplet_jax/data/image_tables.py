"""A data set from a table: a row for every image, with its class and what else is known of it."""

import dataclasses
import pathlib

from triplet_jax import errors
from triplet_jax.data import decoding, image_rows, table_files
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.image_folders import SPLIT_BY
from triplet_jax.data.image_rows import Columns, Rows
from triplet_jax.data.images import ImageForm
from triplet_jax.data.splits import HeldOut


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
      InputError: the file cannot be read; a column that is used is not there, there twice, or has
        an empty cell; a file is listed twice, is not there, or cannot be read as an image; a class
        has two categories; or the splits do not fit `split_by`.
    """
    errors.check_known("split_by", split_by, SPLIT_BY)
    columns = columns or Columns()
    if len(columns.box) not in (0, 4):
        raise errors.InputError(
            f"box={columns.box!r} must name four columns: of left, top, right and bottom."
        )
    used = [columns.path, columns.label, *columns.box, *columns.needed(split_by)]
    used += [columns.split] if split_by == "official" else []
    cells = table_files.read(path, used, [columns.group])
    rows = Rows.of_cells(cells, columns, paths=cells[columns.path], split_by=split_by)
    if columns.box:
        rows = dataclasses.replace(rows, boxes=_boxes(path, [cells[name] for name in columns.box]))
    return image_rows.of_files(
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
    image_rows.check_twice(path, top, names)
    kept = image_rows.kept(path, top, names, bad_images, max_pixels)
    labels = cells.get(columns.label, [""] * len(names))
    return [top / names[row] for row in kept], [labels[row] for row in kept]


def _boxes(path: str, columns: list[list[str]]) -> list[tuple[int, ...]]:
    """The boxes, from the cells of their four columns."""
    boxes = list(zip(*columns, strict=True))
    for number, cells in enumerate(boxes, 1):
        if not all(cell.isdecimal() for cell in cells):
            raise errors.InputError(
                f"path={path!r}: row {number} has the box {cells}, and a box is of whole numbers of"
                " pixels."
            )
    return [tuple(map(int, cells)) for cells in boxes]
