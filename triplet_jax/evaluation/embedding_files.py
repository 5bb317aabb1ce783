"""Embeddings in files, of any library, with what a protocol needs to know of each row."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from triplet_jax import arguments, errors
from triplet_jax.evaluation import embedding_arrays


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Embedded examples, and which of them are queries, references, or to be left out.

    Args:
      embeddings: the rows.
      labels: their classes.
      groups: the group of each, such as its camera: a query leaves out the references that share
        its label and its group; None leaves out nothing but the query itself.
      reference_groups: the group of each as a reference, where that is another one than as a query.
      is_query: which rows are queries.
      is_gallery: which rows are references.
      items: what each row shows, where several rows may show one item; None where they do not.
    """

    embeddings: Float[np.ndarray, "rows dim"]
    labels: Shaped[np.ndarray, "rows"]
    groups: Shaped[np.ndarray, "rows"] | None
    is_query: Bool[np.ndarray, "rows"]
    is_gallery: Bool[np.ndarray, "rows"]
    items: Shaped[np.ndarray, "rows"] | None = None
    reference_groups: Shaped[np.ndarray, "rows"] | None = None

    @property
    def has_gallery(self) -> bool:
        """Whether queries and references are told apart."""
        return not (self.is_query.all() and self.is_gallery.all())

    @property
    def ignore(
        self,
    ) -> tuple[Shaped[np.ndarray, "queries"], Shaped[np.ndarray, "references"]] | None:
        """The groups of the queries and of the references, as `evaluation.retrieval` takes them."""
        if self.groups is None:
            return None
        references = self.groups if self.reference_groups is None else self.reference_groups
        return self.groups[self.is_query], references[self.is_gallery]

    def search(self) -> dict[str, Any]:
        """The arguments of `evaluation.retrieval` by which the queries search the gallery.

        A row that is both is left out of its own neighbours.
        """
        if not self.has_gallery:
            return {"embeddings": self.embeddings, "labels": self.labels, "ignore": self.ignore}
        asks, there = self.is_query, self.is_gallery
        return {
            "embeddings": self.embeddings[asks],
            "labels": self.labels[asks],
            "references": self.embeddings[there],
            "reference_labels": self.labels[there],
            "own": np.where(there, np.cumsum(there) - 1, -1)[asks],
            "ignore": self.ignore,
        }


def read(
    path: str,
    *,
    split: str = "test",
    table: str = "",
    ignore: Sequence[tuple[str, str]] = (),
) -> Embedded:
    """Reads embedded examples from an .npz or a .parquet file, or from a vector store.

    An .npz file holds the arrays on the left, and a .parquet file, for which pyarrow must be
    installed, the columns on the right. All but the first are optional, and labels may be in the
    table:

        embeddings        embedding        `[rows, dim]`; a list of numbers in each row
        labels            label            integers or strings
        groups            group            a camera or a session: `ignore` of `retrieval`
        reference_groups  reference_group  that of a row as a reference, if it is another one
        items             item             what a row shows, where several show one item
        is_query          is_query         booleans: which rows search
        is_gallery        is_gallery       booleans: which rows are searched
        split             split            strings: only the rows of one split are read
        names or paths    name or path     by which rows of the table are found

    A LanceDB table, the folder NAME.lance, has the same columns as a .parquet file. A flat index of
    faiss, NAME.faiss, holds embeddings alone, whose labels are in the table.

    A gallery of `evaluation.gallery` writes such a .parquet file, and calls the embedding `vector`.
    Without `is_query` and `is_gallery` every row searches all others. With one of them alone, the
    other rows are of the other kind.

    Args:
      path: the file.
      split: which rows to read, where the file has `split`.
      table: a .csv, .tsv or .parquet file with the columns on the right except the embedding; what
        it says takes precedence over the file. "" for none. Its rows are found by name where both
        have names, or else row i of the table is row i of the file.
      ignore: pairs of columns of the table, of a query and of a reference, in place of groups: a
        query leaves out the references that share its label and agree with it in every pair.

    Raises:
      InputError: the file or the table, their arrays, shapes or types are not these, no row is of
        the split, or there is no query or no reference.
    """
    given = embedding_arrays.read(path)
    embeddings = arguments.embeddings(given["embeddings"], name=f"path={path!r}: embeddings")
    if not embeddings.size:
        raise errors.InputError(
            f"path={path!r}: embeddings have the shape {embeddings.shape}: there is nothing to"
            " evaluate."
        )
    if table:
        given |= embedding_arrays.of_table(table, given, path, ignore)
    elif ignore:
        raise errors.InputError(
            f"ignore={','.join(map('='.join, ignore))} names columns of a table: give table=FILE."
        )
    if "labels" not in given:
        raise errors.InputError(
            f"path={path!r} lacks ['labels']; it has {sorted(given)}. Add them, or give a table"
            " with a column 'label'."
        )
    given = {name: x for name, x in given.items() if name not in ("embeddings", "names")}
    of_rows = {
        name: np.asarray(arguments.labels(x, embeddings.shape, name=f"path={path!r}: {name}"))
        for name, x in given.items()
    }
    if "split" in of_rows:
        here = of_rows.pop("split") == split
        if not here.any():
            found = sorted(set(given["split"].tolist()))
            raise errors.InputError(
                f"path={path!r}: no row is of split={split!r}; there are {found}."
            )
        embeddings = embeddings[here]
        of_rows = {name: x[here] for name, x in of_rows.items()}
    if "reference_groups" in of_rows and "groups" not in of_rows:
        raise errors.InputError(
            f"path={path!r} has reference_groups without groups, those of the queries: add them."
        )
    roles = {name: of_rows.pop(name) for name in ("is_query", "is_gallery") if name in of_rows}
    return Embedded(embeddings, **{"groups": None} | of_rows, **_roles(path, roles, embeddings))


def _roles(path, given, embeddings):
    """Which rows are queries and which references."""
    everything = np.ones(len(embeddings), bool)
    for name, x in given.items():
        if x.dtype != bool:
            raise errors.InputError(
                f"path={path!r}: {name} has dtype {x.dtype}; it must hold booleans."
            )
    if not given:
        return {"is_query": everything, "is_gallery": everything}
    roles = {
        "is_query": given.get("is_query", ~given.get("is_gallery", ~everything)),
        "is_gallery": given.get("is_gallery", ~given.get("is_query", ~everything)),
    }
    for name, x in roles.items():
        if not x.any():
            raise errors.InputError(f"path={path!r}: {name} is False for every row.")
    return roles


def check_comparable(first: Embedded, other: Embedded, names: tuple[str, str]) -> None:
    """Refuses embeddings of other examples, whose queries cannot be compared one by one.

    Args:
      first: embedded examples.
      other: the same examples, embedded otherwise.
      names: what messages call the two.

    Raises:
      InputError: labels, groups, items, queries or references differ.
    """
    for field in (
        "labels",
        "groups",
        "reference_groups",
        "items",
        "is_query",
        "is_gallery",
    ):
        if not np.array_equal(getattr(first, field), getattr(other, field)):
            raise errors.InputError(
                f"{names[0]} and {names[1]} differ in {field}: to compare them, query by query,"
                " row i of each must be the same example. Write both in one order, or evaluate"
                " them one by one."
            )
