"""The arrays of files of embeddings, and of tables that say more of their rows."""

import collections
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from triplet_jax import errors
from triplet_jax.data import table_files
from triplet_jax.data.file_names import some
from triplet_jax.evaluation import vector_files
from triplet_jax.runs import files

KNOWN = (
    "labels",
    "groups",
    "reference_groups",
    "items",
    "names",
    "is_query",
    "is_gallery",
    "split",
)
"""The arrays that a file may have beside `embeddings`."""
# The columns that hold them, with those that `Gallery.write_parquet` calls otherwise.
_COLUMNS = {
    "embedding": "embeddings",
    "vector": "embeddings",
    "label": "labels",
    "group": "groups",
    "reference_group": "reference_groups",
    "item": "items",
    "name": "names",
    "path": "names",
    "is_query": "is_query",
    "is_gallery": "is_gallery",
    "split": "split",
}
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def read(path: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the arrays that are known here of an .npz or .parquet file or a LanceDB table, or the
    embeddings of an index of faiss.

    Args:
      path: the file.

    Raises:
      InputError: the file cannot be read, or has no embeddings.
    """
    suffix = pathlib.Path(path).suffix
    if suffix == ".faiss":
        return {"embeddings": vector_files.read_faiss(path)}
    if suffix == ".lance":
        return _of_columns(path, *vector_files.read_lance(path, _COLUMNS))
    if suffix == ".parquet":
        return _read_parquet(path)
    present = files.names_of_arrays(path)
    named = {name: name for name in KNOWN if name in present}
    if "names" not in named and "paths" in present:
        named["names"] = "paths"
    arrays = files.read_arrays(path, ("embeddings", *named.values()))
    given = dict(zip(("embeddings", *named), arrays, strict=True))
    if "names" in given and given["names"].shape != given["embeddings"].shape[:1]:
        raise errors.InputError(
            f"path={path!r}: {named['names']} have the shape {given['names'].shape}, and embeddings"
            f" {given['embeddings'].shape}: give one name for each row."
        )
    return given


def _read_parquet(path):
    if not pathlib.Path(path).is_file():
        raise errors.InputError(f"path={path!r} is not a file. Give an .npz or a .parquet file.")
    return _of_columns(
        path, *table_files.read_parquet(path, _COLUMNS, otherwise="write an .npz file")
    )


def _of_columns(path: str, present: Sequence[str], table: Any) -> dict[str, np.ndarray]:
    """The arrays of a table of pyarrow."""
    given = {}
    for column in _COLUMNS:
        name = _COLUMNS[column]
        if column not in present or name in given:
            continue
        if table[column].null_count:
            raise errors.InputError(
                f"path={path!r}: {table[column].null_count} of {len(table)} rows have no"
                f" {column!r}. Fill it, or remove these rows."
            )
        if name == "embeddings":
            given[name] = _matrix(path, column, table[column].combine_chunks())
        else:
            given[name] = _values(path, column, table[column])
    if "embeddings" not in given:
        raise errors.InputError(
            f"path={path!r} lacks the column 'embedding' (or 'vector'); it has {sorted(present)}."
        )
    return given


def _values(path: str, column: str, values: Any) -> Shaped[np.ndarray, "rows ..."]:
    """The values of a column, one in each row."""
    try:
        return np.array(values.to_pylist())
    except ValueError as error:
        raise errors.InputError(
            f"path={path!r}: {column!r} is of type {values.type}, and its lists have several"
            " lengths; it must hold one value in each row."
        ) from error


def _matrix(path: str, column: str, lists: Any) -> Float[np.ndarray, "rows dim"]:
    """The lists of a column as rows."""
    import pyarrow

    kinds = pyarrow.types.is_fixed_size_list, pyarrow.types.is_list, pyarrow.types.is_large_list
    if not any(of_kind(lists.type) for of_kind in kinds):
        raise errors.InputError(
            f"path={path!r}: {column!r} is of type {lists.type}; it must hold lists of numbers, all"
            " of one length."
        )
    lengths = np.unique(lists.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise errors.InputError(
            f"path={path!r}: {column!r} holds lists of {lengths.min()} to {lengths.max()} numbers;"
            " all must have one length."
        )
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(lists), int(lengths[0]) if len(lengths) else 0)


def of_table(
    table: str,
    given: dict[str, Shaped[np.ndarray, "..."]],
    path: str,
    ignore: Sequence[tuple[str, str]] = (),
) -> dict[str, Shaped[np.ndarray, "rows"]]:
    """What a table says of the rows of a file, in their order.

    Rows are found by name where both the file and the table have names. Otherwise row i of the
    table is row i of the file.

    Args:
      table: a .csv, .tsv or .parquet file.
      given: the arrays of the file.
      path: the file.
      ignore: pairs of its columns from which `groups` and `reference_groups` are made, as
        `table_files.numbered` does it.

    Raises:
      InputError: the table cannot be read, has no column that is known, lacks a row or a column of
        `ignore`, or has another number of rows.
    """
    columns = {column: name for column, name in _COLUMNS.items() if name != "embeddings"}
    try:
        needed = [name for pair in ignore for name in pair]
        cells = table_files.read(table, needed, list(columns))
    except errors.InputError as error:
        raise errors.InputError(errors.renamed(str(error), {"path": "table"})) from error
    found = {}
    for column, name in columns.items():
        if column in cells:
            found.setdefault(name, np.array(cells[column]))
    if ignore:
        found["groups"], found["reference_groups"] = table_files.numbered(cells, ignore)
    names = found.pop("names", None)
    if not found:
        wanted = [column for column, name in columns.items() if name != "names"]
        raise errors.InputError(f"table={table!r} has none of the columns {', '.join(wanted)}.")
    rows = len(given["embeddings"])
    if names is not None and "names" in given:
        order = _by_name(table, names, path, given["names"])
    else:
        count = len(next(iter(found.values())))
        if count != rows:
            raise errors.InputError(
                f"table={table!r} has {count} rows, and path={path!r} {rows}: row i of both must be"
                " the same example. Or give both names: a column 'name' or 'path', and the array"
                " 'names' or 'paths'."
            )
        order = np.arange(rows)
    for name in ("is_query", "is_gallery"):
        if name in found:
            found[name] = _booleans(table, name, found[name])
    return {name: x[order] for name, x in found.items()}


def _by_name(table, names, path, wanted):
    twice = [name for name, count in collections.Counter(names.tolist()).items() if count > 1]
    if twice:
        raise errors.InputError(
            f"table={table!r} names {len(twice)} rows more than once: {some(twice)}. Give each one"
            " row."
        )
    place = {name: row for row, name in enumerate(names.tolist())}
    lost = [name for name in map(str, wanted.tolist()) if name not in place]
    if lost:
        raise errors.InputError(
            f"table={table!r} lacks {len(lost)} of {len(wanted)} rows of path={path!r}:"
            f" {some(lost)}. Names must be equal in both."
        )
    return np.array([place[str(name)] for name in wanted.tolist()], int)


def _booleans(table, name, cells):
    texts = np.char.lower(cells)
    unknown = sorted(set(texts.tolist()) - {*_TRUE, *_FALSE})
    if unknown:
        raise errors.InputError(
            f"table={table!r}: {name!r} holds {some(unknown)}; write true or false."
        )
    return np.isin(texts, _TRUE)
