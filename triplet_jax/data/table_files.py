"""The columns of a table in a file."""

import csv
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from triplet_jax import errors
from triplet_jax.runs import files

Column = list[str] | Shaped[np.ndarray, "rows"]
"""The cells of a column, as text."""

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*_DELIMITERS, ".parquet")
"""The endings of files that are read as tables."""


def read(path: str, used: Sequence[str], also: Sequence[str] = ()) -> dict[str, list[str]]:
    """Reads columns of a table as text.

    Args:
      path: a .csv or .tsv file in UTF-8 with a row of column names, or a .parquet file, for which
        pyarrow must be installed.
      used: the columns that are needed.
      also: those that are read if the table has them.

    Returns:
      The cells of each column.

    Raises:
      InputError: the file cannot be read, lacks a needed column or has a used one twice, has no
        rows, or has an empty cell, such as NaN in a column of floats.
    """
    file = pathlib.Path(path)
    if not files.is_file(path):
        raise errors.InputError(f"path={path!r} is not a file. Give a .csv, .tsv or .parquet file.")
    if file.suffix == ".parquet":
        present, cells = _read_parquet(file, {*used, *also})
    elif file.suffix in _DELIMITERS:
        present, cells = _read_text(file, {*used, *also})
    else:
        raise errors.InputError(f"path={path!r} must be a .csv, .tsv or .parquet file.")
    missing = [name for name in used if name not in present]
    if missing:
        raise errors.InputError(
            f"path={path!r} lacks the columns {missing}; it has {sorted(present)}. Name the columns"
            " of this table."
        )
    for name in cells:
        empty = [row for row, cell in enumerate(cells[name], 1) if not cell]
        if empty:
            raise errors.InputError(
                f"path={path!r}: {len(empty)} of {len(cells[name])} rows have an empty {name!r},"
                f" first row {empty[0]}. Fill it, or remove these rows."
            )
    if not all(cells.values()):
        raise errors.InputError(f"path={path!r} has no rows.")
    return cells


def numbered(
    cells: Mapping[str, Column], pairs: Sequence[tuple[str, str]]
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "rows"]]:
    """Numbers the rows of a table as queries and as references, so that a query and a reference
    have equal numbers where they agree in every pair of columns.

        >>> cells = {"camera": ["a", "b"], "other": ["b", "c"]}
        >>> queries, references = numbered(cells, [("camera", "other")])
        >>> print(queries[1] == references[0], queries[0] == references[1])
        True False

    Args:
      cells: the columns.
      pairs: a column of the query and a column of the reference, which may be the same.
    """
    sides = [list(zip(*(cells[pair[side]] for pair in pairs), strict=True)) for side in (0, 1)]
    numbers = {values: number for number, values in enumerate(dict.fromkeys(sides[0] + sides[1]))}
    queries, references = (np.array([numbers[values] for values in side], int) for side in sides)
    return queries, references


def is_missing(cell: Any) -> bool:
    """Whether a cell of a typed column holds nothing: null, or a float that is no number."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _check_once(path: str, present: Sequence[str], used: Collection[str]) -> None:
    twice = [name for name in used if present.count(name) > 1]
    if twice:
        raise errors.InputError(
            f"path={path!r} has the columns {sorted(twice)} more than once. Rename or remove one of"
            " each."
        )


def _read_text(file, used):
    try:
        # utf-8-sig leaves out the mark with which spreadsheets begin a file.
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.DictReader(opened, delimiter=_DELIMITERS[file.suffix], strict=True)
            present = reader.fieldnames or []
            _check_once(str(file), present, used)
            rows = list(reader)
    except OSError as error:
        errors.check_answers(error)
        raise errors.InputError(
            f"path={str(file)!r} cannot be read: {error.strerror}. See whether this user may read"
            " it."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(
            f"path={str(file)!r} cannot be read as a table in UTF-8: {error}."
        ) from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise errors.InputError(
                f"path={str(file)!r}: row {number} has another number of cells than the"
                f" {len(present)} columns."
            )
    return present, {name: [row[name] for row in rows] for name in used if name in present}


def _read_parquet(file, used):
    present, columns = read_parquet(str(file), used, otherwise="write the table as .csv")
    return present, {
        name: ["" if is_missing(cell) else str(cell) for cell in columns[name].to_pylist()]
        for name in columns.column_names
    }


def read_parquet(path: str, used: Collection[str], *, otherwise: str) -> tuple[list[str], Any]:
    """Reads columns of a Parquet file.

    Args:
      path: the file.
      used: the columns, of which those that the file has are read.
      otherwise: what a message says to do without pyarrow.

    Returns:
      The names of all columns, and the table of those that are used, which is one of pyarrow.

    Raises:
      InputError: pyarrow is not installed, the file cannot be read, or it has a used column twice.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise errors.InputError(
            f"path={path!r} needs pyarrow: pip install 'triplet_jax[search]', or {otherwise}."
        ) from error
    try:
        opened = pyarrow.parquet.ParquetFile(path)
        present = opened.schema_arrow.names
        _check_once(path, present, used)
        return present, opened.read(columns=[name for name in used if name in present])
    except (pyarrow.ArrowException, OSError) as error:
        errors.check_answers(error)
        raise errors.InputError(
            f"path={path!r} cannot be read as a Parquet file: {error}"
        ) from error
