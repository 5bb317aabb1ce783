"""A gallery of embedded images on disk: adds and removes images, and finds the nearest.

LanceDB keeps it. A reader sees each change whole or not at all, so that a process that is killed
loses only the change that it was writing. Only one process at a time may change a gallery: two
that add the same images at the same time leave them there twice.
"""

import contextlib
import datetime
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from triplet_jax import errors
from triplet_jax.evaluation import gallery_errors, verification_metrics
from triplet_jax.evaluation.gallery_errors import UnusableError as UnusableError
from triplet_jax.runs import seal
from triplet_jax.runs.files import whole_file

_TABLE = "images"
_FILES = f"{_TABLE}.lance"
LEAST_APPROXIMATE = 10_000
"""The fewest images for an index: exact search among fewer takes milliseconds, and an index has too
few to learn from."""
# The share of the cells that a query looks at.
_PROBED = 0.2
# Every change adds files, which slow a search down; above this number of versions they are merged.
_MOST_VERSIONS = 16


class Gallery:
    """Embeddings of images, by path.

        found = gallery.Gallery(pathlib.Path("gallery"), dim=64)
        found.put(paths, labels, marks, embeddings)
        answers = found.nearest(queries, neighbours=5)

    Args:
      folder: the folder that keeps the gallery; it is made if there is none.
      dim: values of an embedding.

    Raises:
      InputError: lancedb is not installed.
      UnusableError: the gallery is damaged, or has another `dim`.
      OSError: the folder cannot be read or written, as on a full disk.
    """

    def __init__(self, folder: pathlib.Path, *, dim: int):
        lancedb, pa = gallery_errors.libraries()
        self._folder = folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._files = folder / _FILES
        self._replaced = 0  # rows in the files that were replaced or deleted since the last merge
        fault = seal.fault(self._files)
        if fault:
            raise UnusableError(folder, f"is damaged: {fault}")
        self._schema = pa.schema(
            [
                pa.field("path", pa.string()),
                pa.field("label", pa.string()),
                pa.field("mark", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), dim)),
            ]
        )
        with gallery_errors.naming(folder):
            database = lancedb.connect(str(folder))
            if os.path.lexists(self._files):
                self._table = database.open_table(_TABLE)
            else:
                self._table = database.create_table(_TABLE, schema=self._schema)
            there = self._table.schema
        if [(field.name, field.type) for field in there] != [
            (field.name, field.type) for field in self._schema
        ]:
            raise UnusableError(folder, f"holds {_kind(there)}, and these have {dim} values")

    def __len__(self) -> int:
        """The number of images."""
        with gallery_errors.naming(self._folder):
            return self._table.count_rows()

    @property
    def marks(self) -> dict[str, str]:
        """The mark of every path, as `put` was given it.

        Raises:
          UnusableError: a path is there more than once.
        """
        if not len(self):
            return {}
        with gallery_errors.naming(self._folder):
            rows = self._table.search().select(["path", "mark"]).limit(len(self)).to_arrow()
            paths = rows["path"].to_pylist()
            marks = dict(zip(paths, rows["mark"].to_pylist(), strict=True))
        if len(marks) < len(paths):
            twice = f"{len(paths) - len(marks):,} of {len(paths):,} rows have the path of another"
            raise UnusableError(self._folder, f"is damaged: {twice}")
        return marks

    @property
    def is_compact(self) -> bool:
        """Whether nothing has changed since `compact` or `build_index`."""
        return seal.is_closed(self._files)

    def put(
        self,
        paths: Sequence[str],
        labels: Sequence[str],
        marks: Sequence[str],
        embeddings: Float[np.ndarray, "images dim"],
    ) -> None:
        """Adds images, and replaces those whose paths are there already.

        Args:
          paths: the path of every image, each once.
          labels: what is shown with every image, such as its folder.
          marks: the version of every file and of the encoder, for `changes` to compare.
          embeddings: the embedding of every image.
        """
        _, pa = gallery_errors.libraries()
        vectors = np.ascontiguousarray(embeddings, np.float32)
        flat = pa.array(vectors.reshape(-1))
        columns = [pa.array(list(column), pa.string()) for column in (paths, labels, marks)] + [
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        ]
        rows = pa.table(columns, schema=self._schema)
        with self._change():
            merge = self._table.merge_insert("path").when_matched_update_all()
            done = merge.when_not_matched_insert_all().execute(rows)
            self._replaced += done.num_updated_rows

    def remove(self, paths: Sequence[str]) -> None:
        """Removes images; paths that are not there are ignored."""
        for start in range(0, len(paths), 500):
            quoted = ", ".join("'" + p.replace("'", "''") + "'" for p in paths[start : start + 500])
            with self._change():
                done = self._table.delete(f"path IN ({quoted})")
                self._replaced += done.num_deleted_rows

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Runs a block that changes the table; merges its files if there are many."""
        seal.open(self._files)
        with gallery_errors.naming(self._folder):
            yield
            many = len(self._table.list_versions()) > _MOST_VERSIONS
            if many or self._replaced > len(self):
                self._merge()

    def compact(self) -> None:
        """Merges the files that changes have left, and seals them.

        The gallery is then as if it was made at once. If its files differ when it is next opened,
        it is refused. The index is dropped, since LanceDB would merge its cells with the files;
        `build_index` makes a new one. No other process may read the gallery meanwhile.
        """
        seal.open(self._files)
        with gallery_errors.naming(self._folder):
            self._merge()
            seal.close(self._files)

    def _merge(self) -> None:
        self._replaced = 0
        for index in self._table.list_indices():
            self._table.drop_index(index.name)
        with warnings.catch_warnings():
            # It warns that nobody else may read the table meanwhile.
            warnings.simplefilter("ignore", UserWarning)
            self._table.optimize(
                cleanup_older_than=datetime.timedelta(0),
                delete_unverified=True,  # also files that a killed process has left
            )

    def nearest(
        self,
        queries: Float[np.ndarray, "queries dim"],
        neighbours: int,
        *,
        approximate: bool = False,
    ) -> list[pd.DataFrame]:
        """Finds the nearest images of each query by Euclidean distance.

        Args:
          queries: embeddings.
          neighbours: how many images; all of them if there are fewer.
          approximate: whether to search the index of `build_index`, or all images.

        Returns:
          For each query a table with `path`, `label` and `distance`, nearest first.
        """
        with gallery_errors.naming(self._folder):
            cells = max(1, round(_PROBED * self._cells))
            return [
                self._nearest(query, neighbours, cells if approximate else None)
                for query in np.asarray(queries, np.float32)
            ]

    def _nearest(
        self, query: Float[np.ndarray, "dim"], neighbours: int, cells: int | None
    ) -> pd.DataFrame:
        search = self._table.search(query).distance_type("l2")
        search = search.bypass_vector_index() if cells is None else search.nprobes(cells)
        rows = search.select(["path", "label", "_distance"]).limit(neighbours).to_pandas()
        rows["distance"] = np.sqrt(np.maximum(rows.pop("_distance"), 0.0))
        return rows

    @property
    def _cells(self) -> int:
        """The number of cells of an index."""
        return max(1, round(len(self) ** 0.5))

    def build_index(self) -> None:
        """Builds the index of approximate search: about sqrt(n) cells, of which a query scans some.

        An index that already holds all images stays as it is.

        Raises:
          InputError: there are fewer than `LEAST_APPROXIMATE` images.
        """
        if len(self) < LEAST_APPROXIMATE:
            raise errors.InputError(
                f"Approximate search needs {LEAST_APPROXIMATE:,} images, and there are"
                f" {len(self):,}: exact search is as fast. Search exactly."
            )
        from lancedb.index import IvfFlat

        with gallery_errors.naming(self._folder):
            if [index.num_unindexed_rows for index in self._table.list_indices()] == [0]:
                return
            seal.open(self._files)
            self._merge()
            index = IvfFlat(distance_type="l2", num_partitions=self._cells)
            self._table.create_index("vector", config=index)
            seal.close(self._files)

    def recall(self, neighbours: int, *, queries: int = 100, seed: int = 0) -> float:
        """The share of the exact neighbours that approximate search finds.

        Args:
          neighbours: how many neighbours are compared.
          queries: how many images of the gallery are asked for, at most.
          seed: decides which.
        """
        vectors = self.table().vector.to_numpy()
        random = np.random.default_rng(seed)
        chosen = random.choice(len(vectors), min(queries, len(vectors)), replace=False)
        asked = np.stack(vectors[chosen])
        exact = self.nearest(asked, neighbours)
        quick = self.nearest(asked, neighbours, approximate=True)
        shares = [
            len(set(a.path) & set(b.path)) / len(a) for a, b in zip(exact, quick, strict=True)
        ]
        return float(np.mean(shares))

    def table(self) -> pd.DataFrame:
        """All images: a table with `path`, `label`, `mark` and `vector`."""
        with gallery_errors.naming(self._folder):
            return self._table.to_pandas()

    def write_parquet(self, file: pathlib.Path) -> None:
        """Writes all images into a Parquet file, which other vector databases can read.

        Raises:
          OSError: the file cannot be written.
        """
        import pyarrow.parquet

        with gallery_errors.naming(self._folder):
            everything = self._table.to_arrow()
        with whole_file(file) as opened:
            pyarrow.parquet.write_table(everything, opened)


def remove(folder: pathlib.Path) -> None:
    """Removes a gallery from its folder; other files there stay."""
    files = folder / _FILES
    if files.is_dir() and not files.is_symlink():
        shutil.rmtree(files)
    else:
        files.unlink(missing_ok=True)


def _kind(schema: Any) -> str:
    """What a table of this schema holds."""
    if "vector" in schema.names and hasattr(schema.field("vector").type, "list_size"):
        return f"embeddings of {schema.field('vector').type.list_size} values"
    return f"a table of {', '.join(schema.names)}"


def changes(gallery: Mapping[str, str], folder: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What to put into a gallery and what to remove, so that it matches a folder.

    >>> changes({"a": "1", "b": "1"}, {"a": "1", "c": "1"})
    (['c'], ['b'])

    Args:
      gallery: the mark of every path in the gallery, from `Gallery.marks`.
      folder: the mark of every path in the folder.

    Returns:
      The paths to put, since they are new or their marks differ, and the paths to remove.
    """
    put = [path for path, mark in folder.items() if gallery.get(path) != mark]
    return put, [path for path in gallery if path not in folder]


def threshold(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: np.ndarray,
    *,
    false_accept_rate: float,
) -> verification_metrics.Accepted:
    """The largest distance at which two images count as one class, for a false accept rate.

    Args:
      embeddings: examples that the encoder was not trained on.
      labels: their classes.
      false_accept_rate: the largest share of pairs of different classes that may be accepted.

    Returns:
      The distance, with the rates that it gives on these examples.

    Raises:
      InputError: the rate is not in (0, 1), or the examples have too few pairs to measure it.
    """
    if not 0 < false_accept_rate < 1:
        raise errors.InputError(
            f"false_accept_rate={false_accept_rate} must be above 0 and below 1."
        )
    same, different = verification_metrics.pair_distances(embeddings, labels)
    if not len(same) or len(different) * false_accept_rate < 10:
        raise errors.InputError(
            f"false_accept_rate={false_accept_rate} cannot be measured by {len(same):,} pairs of"
            f" one class and {len(different):,} of two: at least one of one class and"
            f" {int(np.ceil(10 / false_accept_rate)):,} of two are needed. Give a larger rate, or"
            " more examples."
        )
    return verification_metrics.roc(same, different).at(false_accept_rate)
