"""A gallery of embedded images on disk: add, remove, and find the nearest.

LanceDB keeps it. Each change is one commit that a reader sees whole or not at all, so that
a process that is killed while it writes loses no more than what it was writing. One process at a
time may change a gallery: two that add the same images at once leave them there twice.
"""

import contextlib
import datetime
import errno
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from triplet_jax import errors
from triplet_jax.evaluation import verification_metrics
from triplet_jax.runs import seal
from triplet_jax.runs.files import whole_file

_TABLE = "images"
_FILES = f"{_TABLE}.lance"
# With fewer, looking at all of them takes milliseconds, and an index has too few to learn from.
LEAST_APPROXIMATE = 10_000
# The share of the cells that a query looks at.
_PROBED = 0.2
# Every change adds files and slows a search down. With so many, they are merged.
_MOST_VERSIONS = 16


class UnusableError(errors.InputError):
    """A gallery is damaged, or not of these embeddings; `remove` clears the way for a new one.

    Args:
      folder: of the gallery.
      why: what is wrong with it, as the rest of a sentence.
    """

    def __init__(self, folder: pathlib.Path, why: str):
        super().__init__(
            f"The gallery in {folder} {why}. Remove that folder to make the gallery anew."
        )
        self.why = why


class Gallery:
    """Embeddings of images by path.

    Args:
      folder: where it is kept; made if it is not there.
      dim: values of an embedding.

    Raises:
      InputError: lancedb is not installed.
      UnusableError: the gallery is damaged, or of another `dim`.
      OSError: the folder cannot be read or written, as on a full disk.
    """

    def __init__(self, folder: pathlib.Path, *, dim: int):
        lancedb, pa = _libraries()
        self._folder = folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._files = folder / _FILES
        self._replaced = 0  # rows that are still in a file, since the files were merged
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
        with _naming(folder):
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
        with _naming(self._folder):
            return self._table.count_rows()

    @property
    def marks(self) -> dict[str, str]:
        """The mark of every path: what `put` was told of the version of it that is here.

        Raises:
          UnusableError: a path is there more than once.
        """
        if not len(self):
            return {}
        with _naming(self._folder):
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
        """Adds images; one whose path is there already is replaced.

        Args:
          paths: of the images, each once.
          labels: what to show beside each, such as the folder that it lies in.
          marks: the version of each file and of the encoder, compared by the caller.
          embeddings: of the images.
        """
        _, pa = _libraries()
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
        """Takes images out; a path that is not there is nothing to it."""
        for start in range(0, len(paths), 500):
            quoted = ", ".join("'" + p.replace("'", "''") + "'" for p in paths[start : start + 500])
            with self._change():
                done = self._table.delete(f"path IN ({quoted})")
                self._replaced += done.num_deleted_rows

    @contextlib.contextmanager
    def _change(self):
        seal.open(self._files)
        with _naming(self._folder):
            yield
            many = len(self._table.list_versions()) > _MOST_VERSIONS
            if many or self._replaced > len(self):
                self._merge()

    def compact(self) -> None:
        """Merges the files that changes have left, so that the gallery is as one made at once.

        Also seals them: a gallery whose files differ when it is opened next is refused. An index is
        dropped, since LanceDB would merge its cells with the files: `build_index` makes another.
        No other process may read the gallery meanwhile.
        """
        seal.open(self._files)
        with _naming(self._folder):
            self._merge()
            seal.close(self._files)

    def _merge(self):
        self._replaced = 0
        for index in self._table.list_indices():
            self._table.drop_index(index.name)
        with warnings.catch_warnings():
            # That nobody else may read it meanwhile.
            warnings.simplefilter("ignore", UserWarning)
            self._table.optimize(
                cleanup_older_than=datetime.timedelta(0),
                delete_unverified=True,  # what a killed process has left
            )

    def nearest(
        self,
        queries: Float[np.ndarray, "queries dim"],
        neighbours: int,
        *,
        approximate: bool = False,
    ) -> list[pd.DataFrame]:
        """For each query its nearest images: `path`, `label`, `distance`, nearest first.

        Args:
          queries: embeddings.
          neighbours: how many; fewer if there are no more.
          approximate: whether to use the index that `build_index` made.
        """
        with _naming(self._folder):
            cells = max(1, round(_PROBED * self._cells))
            return [
                self._nearest(query, neighbours, cells if approximate else None)
                for query in np.asarray(queries, np.float32)
            ]

    def _nearest(self, query, neighbours, cells):
        search = self._table.search(query).distance_type("l2")
        search = search.bypass_vector_index() if cells is None else search.nprobes(cells)
        rows = search.select(["path", "label", "_distance"]).limit(neighbours).to_pandas()
        rows["distance"] = np.sqrt(np.maximum(rows.pop("_distance"), 0.0))
        return rows

    @property
    def _cells(self):
        return max(1, round(len(self) ** 0.5))

    def build_index(self) -> None:
        """Prepares approximate search: about sqrt(n) cells, of which a query looks at some.

        An index that holds all images is left as it is.

        Raises:
          InputError: there are fewer than `LEAST_APPROXIMATE` images.
        """
        if len(self) < LEAST_APPROXIMATE:
            raise errors.InputError(
                f"Approximate search needs {LEAST_APPROXIMATE:,} images, and there are"
                f" {len(self):,}: exact search is as fast. Leave it out."
            )
        from lancedb.index import IvfFlat

        with _naming(self._folder):
            if [index.num_unindexed_rows for index in self._table.list_indices()] == [0]:
                return
            seal.open(self._files)
            self._merge()
            index = IvfFlat(distance_type="l2", num_partitions=self._cells)
            self._table.create_index("vector", config=index)
            seal.close(self._files)

    def recall(self, neighbours: int, *, queries: int = 100, seed: int = 0) -> float:
        """How much of the exact answer the approximate one holds, for images of the gallery."""
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
        """Everything: `path`, `label`, `mark`, `vector`."""
        with _naming(self._folder):
            return self._table.to_pandas()

    def write_parquet(self, file: pathlib.Path) -> None:
        """Everything in a Parquet file, for any other vector database; see `files.whole_file`."""
        import pyarrow.parquet

        with _naming(self._folder):
            everything = self._table.to_arrow()
        with whole_file(file) as opened:
            pyarrow.parquet.write_table(everything, opened)


def remove(folder: pathlib.Path) -> None:
    """Removes a gallery from its folder, and nothing else that is there."""
    files = folder / _FILES
    if files.is_dir() and not files.is_symlink():
        shutil.rmtree(files)
    else:
        files.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(folder):
    """Turns errors of LanceDB into one that names the gallery, and says what to do."""
    try:
        yield
    except errors.InputError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number is not None and number not in _OF_DAMAGE:
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise UnusableError(folder, f"is damaged: {_first_line(error)}") from error
    except BaseException as error:
        # Of Rust, where a length in a damaged file is past its end; neither is a RuntimeError.
        if type(error).__name__ not in ("PanicException", "RustPanic"):
            raise
        raise UnusableError(folder, f"is damaged: {_first_line(error)}") from error


# What the system says of a file that is gone or was replaced by a folder.
_OF_DAMAGE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


def _first_line(error):
    """Why, without the place in LanceDB's source."""
    return re.split(r", /|\n", str(error) or repr(error))[0][:200]


def _kind(schema):
    if "vector" in schema.names and hasattr(schema.field("vector").type, "list_size"):
        return f"embeddings of {schema.field('vector').type.list_size} values"
    return f"a table of {', '.join(schema.names)}"


def changes(gallery: Mapping[str, str], folder: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What to put and what to remove, so that the gallery is as the folder.

    Args:
      gallery: the marks of `Gallery.marks`.
      folder: the marks of the files that there are now, by path.
    """
    put = [path for path, mark in folder.items() if gallery.get(path) != mark]
    return put, [path for path in gallery if path not in folder]


def threshold(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: np.ndarray,
    *,
    false_accept_rate: float,
) -> verification_metrics.Accepted:
    """The distance up to which two images count as the same class, and what that accepts.

    Args:
      embeddings: examples that the encoder was not trained on.
      labels: their classes.
      false_accept_rate: the share of pairs of two classes to accept, at most.

    Raises:
      InputError: the rate is not in (0, 1), or the examples have too few pairs to tell.
    """
    if not 0 < false_accept_rate < 1:
        raise errors.InputError(
            f"false_accept_rate={false_accept_rate} must be above 0 and below 1."
        )
    same, different = verification_metrics.pair_distances(embeddings, labels)
    if not len(same) or len(different) * false_accept_rate < 10:
        raise errors.InputError(
            f"false_accept_rate={false_accept_rate} cannot be told from {len(same):,} pairs of"
            f" one class and {len(different):,} of two: at least one of one class and"
            f" {int(np.ceil(10 / false_accept_rate)):,} of two are needed. Give a larger rate, or"
            " more examples."
        )
    return verification_metrics.roc(same, different).at(false_accept_rate)


def _libraries():
    try:
        import lancedb
        import pyarrow
    except ImportError as error:
        raise errors.InputError(
            "A gallery needs lancedb: pip install 'triplet_jax[search]', or pip install lancedb"
        ) from error
    return lancedb, pyarrow
