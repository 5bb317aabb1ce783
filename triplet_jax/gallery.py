"""A gallery of embedded images on disk: add, remove, and find the nearest.

LanceDB keeps it. Each change is one commit that a reader sees whole or not at all, so that
a process that is killed while it writes loses no more than what it was writing.
"""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from triplet_jax import errors, evaluation, writing

_TABLE = "images"
# With fewer, looking at all of them takes milliseconds, and an index has too few to learn from.
LEAST_APPROXIMATE = 10_000
# The share of the cells that a query looks at.
_PROBED = 0.2


class Gallery:
    """Embeddings of images by path.

    Args:
      folder: where it is kept; made if it is not there.
      dim: values of an embedding.

    Raises:
      InputError: lancedb is not installed, or the gallery is of another `dim`.
    """

    def __init__(self, folder: pathlib.Path, *, dim: int):
        lancedb, pa = _libraries()
        database = lancedb.connect(str(folder))
        schema = pa.schema(
            [
                pa.field("path", pa.string()),
                pa.field("label", pa.string()),
                pa.field("mark", pa.string()),
                pa.field("vector", pa.list_(pa.float32(), dim)),
            ]
        )
        if _TABLE in database.list_tables().tables:
            self._table = database.open_table(_TABLE)
        else:
            self._table = database.create_table(_TABLE, schema=schema)
        there = self._table.schema.field("vector").type.list_size
        if there != dim:
            raise errors.InputError(
                f"The gallery in {folder} holds embeddings of {there} values, and these have {dim}."
                " Remove that folder to make it anew."
            )
        self._schema = schema

    def __len__(self) -> int:
        return self._table.count_rows()

    @property
    def marks(self) -> dict[str, str]:
        """The mark of every path: what `put` was told of the version of it that is here."""
        if not len(self):
            return {}
        rows = self._table.search().select(["path", "mark"]).limit(len(self)).to_arrow()
        return dict(zip(rows["path"].to_pylist(), rows["mark"].to_pylist(), strict=True))

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
        merge = self._table.merge_insert("path").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(rows)

    def remove(self, paths: Sequence[str]) -> None:
        """Takes images out; a path that is not there is nothing to it."""
        for start in range(0, len(paths), 500):
            quoted = ", ".join("'" + p.replace("'", "''") + "'" for p in paths[start : start + 500])
            self._table.delete(f"path IN ({quoted})")

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
        found = []
        for query in np.asarray(queries, np.float32):
            search = self._table.search(query).distance_type("l2")
            if approximate:
                search = search.nprobes(max(1, round(_PROBED * self._cells)))
            else:
                search = search.bypass_vector_index()
            rows = search.select(["path", "label", "_distance"]).limit(neighbours).to_pandas()
            rows["distance"] = np.sqrt(np.maximum(rows.pop("_distance"), 0.0))
            found.append(rows)
        return found

    @property
    def _cells(self):
        return max(1, round(len(self) ** 0.5))

    def build_index(self) -> None:
        """Prepares approximate search: about sqrt(n) cells, of which a query looks at some.

        Raises:
          InputError: there are fewer than `LEAST_APPROXIMATE` images.
        """
        if len(self) < LEAST_APPROXIMATE:
            raise errors.InputError(
                f"Approximate search needs {LEAST_APPROXIMATE:,} images, and there are"
                f" {len(self):,}: exact search is as fast. Leave it out."
            )
        from lancedb.index import IvfFlat

        index = IvfFlat(distance_type="l2", num_partitions=self._cells)
        self._table.create_index("vector", config=index)

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
        return self._table.to_pandas()

    def write_parquet(self, file: pathlib.Path) -> None:
        """Everything in a Parquet file, for any other vector database; see `writing.whole_file`."""
        import pyarrow.parquet

        everything = self._table.to_arrow()
        with writing.whole_file(file) as opened:
            pyarrow.parquet.write_table(everything, opened)


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
) -> evaluation.Accepted:
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
            f"--false_accept_rate={false_accept_rate} must be above 0 and below 1."
        )
    same, different = evaluation.pair_distances(embeddings, labels)
    if not len(same) or len(different) * false_accept_rate < 10:
        raise errors.InputError(
            f"--false_accept_rate={false_accept_rate} cannot be told from {len(same):,} pairs of"
            f" one class and {len(different):,} of two: at least"
            f" {int(np.ceil(10 / false_accept_rate)):,} of two are needed. Give a larger rate, or"
            " train with a larger dataset.validation_fraction."
        )
    return evaluation.roc(same, different).at(false_accept_rate)


def _libraries():
    try:
        import lancedb
        import pyarrow
    except ImportError as error:
        raise errors.InputError(
            "A gallery needs lancedb: pip install 'triplet_jax[search]', or pip install lancedb"
        ) from error
    return lancedb, pyarrow
