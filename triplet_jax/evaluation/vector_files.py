"""Embeddings as the files of vector stores: Parquet, tables of LanceDB, and indexes of faiss.

Parquet and LanceDB hold a row for every embedding, by one schema, of which all columns but the
first may be missing (`embedding_files.read` knows more of them):

    embedding   fixed_size_list<float32>[dim]
    path        string
    label       string
"""

import csv
import importlib
import io
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from triplet_jax import errors
from triplet_jax.runs import files

# What a file of each ending needs: a package, and the extra that brings it.
_NEEDS = {
    ".parquet": ("pyarrow", "search"),
    ".lance": ("lancedb", "search"),
    ".faiss": ("faiss", "faiss"),
}
SUFFIXES = tuple(_NEEDS)
"""The endings of the files: a LanceDB table is the folder NAME.lance."""


def check_installed(path: pathlib.Path) -> None:
    """Refuses a file whose package is not installed.

    Raises:
      InputError: with the extra that brings the package.
    """
    package, extra = _NEEDS[path.suffix]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise errors.InputError(
            f"path={str(path)!r} needs the package {package}: pip install 'triplet_jax[{extra}]',"
            " or write an .npz file."
        ) from error


def write(
    path: pathlib.Path,
    embeddings: Float[np.ndarray, "rows dim"],
    *,
    names: Shaped[np.ndarray, "rows"],
    labels: Shaped[np.ndarray, "rows"],
) -> None:
    """Writes embeddings, and replaces what was there.

    An index of faiss holds no names, so a .csv of the same name with the columns path and label is
    written beside it; row i of either is the same example. It is an `IndexFlatL2`.

    Args:
      path: a file with one of `SUFFIXES`.
      embeddings: the rows.
      names: what each shows, such as its file.
      labels: their classes.

    Raises:
      InputError: the package is not installed.
      OSError: the file cannot be written.
    """
    check_installed(path)
    if path.suffix == ".faiss":
        _write_faiss(path, embeddings)
        _write_csv(path.with_suffix(".csv"), names, labels)
        return
    table = _as_table(embeddings, names, labels)
    if path.suffix == ".lance":
        import lancedb

        lancedb.connect(path.parent).create_table(path.stem, data=table, mode="overwrite")
        return
    import pyarrow.parquet

    with files.whole_file(path) as file:
        pyarrow.parquet.write_table(table, file)


def read_lance(path: str, used: Collection[str]) -> tuple[list[str], Any]:
    """Reads columns of a LanceDB table.

    Args:
      path: its folder, NAME.lance.
      used: the columns, of which those that the table has are read.

    Returns:
      The names of all columns, and the table of those that are used, which is one of pyarrow.

    Raises:
      InputError: lancedb is not installed, or the table cannot be read.
    """
    place = _found(path)

    def opened():
        import lancedb

        return lancedb.connect(place.parent).open_table(place.stem).to_arrow()

    table = _reading(path, "a LanceDB table", opened)
    return table.column_names, table.select([name for name in table.column_names if name in used])


def read_faiss(path: str) -> Float[np.ndarray, "rows dim"]:
    """The vectors of a flat index of faiss, in the order in which they were added.

    Args:
      path: the file.

    Raises:
      InputError: faiss is not installed, the file cannot be read, or the index keeps its vectors
        otherwise, as a compressed one does.
    """
    _found(path)

    def opened():
        import faiss

        index = faiss.read_index(path)
        is_flat = isinstance(index, faiss.IndexFlat)
        return index.reconstruct_n(0, index.ntotal) if is_flat else type(index).__name__

    vectors = _reading(path, "an index of faiss", opened)
    if isinstance(vectors, str):
        raise errors.InputError(
            f"path={path!r} holds an {vectors}, which may keep its vectors in another order or"
            " rounded. Write the embeddings into an IndexFlatL2 or IndexFlatIP."
        )
    return vectors


def _found(path: str) -> pathlib.Path:
    place = pathlib.Path(path)
    if not place.exists():
        raise errors.InputError(f"path={path!r} is not there. Give a file of embeddings.")
    check_installed(place)
    return place


def _reading(path: str, kind: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # damage makes both libraries raise many kinds
        why = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise errors.InputError(f"path={path!r} cannot be read as {kind}: {why}") from error


def _as_table(embeddings, names, labels):
    import pyarrow

    values = pyarrow.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
    vectors = pyarrow.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
    text = {
        name: pyarrow.array(x.tolist(), pyarrow.string())
        for name, x in (("path", names), ("label", labels))
    }
    return pyarrow.table({"embedding": vectors, **text})


def _write_faiss(path, embeddings):
    import faiss

    index = faiss.IndexFlatL2(embeddings.shape[1])
    index.add(np.ascontiguousarray(embeddings, np.float32))
    with files.whole_file(path) as file:
        file.write(faiss.serialize_index(index).tobytes())


def _write_csv(path, names, labels):
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("path", "label"))
    rows.writerows(zip(names.tolist(), labels.tolist(), strict=True))
    files.write_text(path, text.getvalue())
