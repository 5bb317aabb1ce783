"""How the references of embedded queries are ranked, beyond by their distances."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.config import naming
from triplet_jax import errors, evaluation
from triplet_jax.evaluation.embedding_files import Embedded

ITEMS = ("mean", "nearest")
_FLAGS = {name: f"--rerank: {name}" for name in ("k1", "k2", "weight")}
_FLAGS |= {name: f"--expand_queries: {name}" for name in ("count", "alpha")}
# Lengths that differ by less from 1 are 1.
_UNIT = 1e-3


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What is done to embeddings, one after the other, before references are ranked.

    Args:
      items: what is compared of items of several rows: their "mean", or their "nearest" rows; ""
        where each row is compared.
      expand: the count and the alpha of `evaluation.expand_queries`; None for none.
      rerank: k1, k2 and the weight of `evaluation.k_reciprocal`; None for none.
    """

    items: str = ""
    expand: tuple[int, float] | None = None
    rerank: tuple[int, int, float] | None = None

    def steps(self) -> tuple[str, ...]:
        """A description of each step."""
        found = []
        if self.items:
            found.append(f"items by their {self.items}" + " rows" * (self.items == "nearest"))
        if self.expand:
            count, alpha = self.expand
            found.append(f"queries expanded by their {count} nearest, alpha {alpha:g}")
        if self.rerank:
            k1, k2, weight = self.rerank
            found.append(f"re-ranked by k-reciprocal neighbours, {k1}, {k2}, {weight:g}")
        return tuple(found)

    def search(self, embedded: Embedded, path: str) -> dict[str, Any]:
        """The arguments of `evaluation.retrieval`.

        Args:
          embedded: the rows.
          path: of their file, for messages.

        Raises:
          InputError: there are no items, rows of an item differ in label or group, or a number is
            out of its range.
        """
        if self.items and embedded.items is None:
            raise errors.InputError(
                f"--items={self.items} needs items: {path} has none, and no --table gives them."
            )
        with naming.rewriting(lambda said: f"{path}: {errors.renamed(said, _FLAGS)}"):
            return self._search(embedded)

    def _search(self, embedded):
        given = _of_items(embedded, self.items) if self.items else embedded.search()
        if self.expand:
            given = _expanded(given, *self.expand)
        if self.rerank:
            k1, k2, weight = self.rerank
            found = evaluation.k_reciprocal(
                given.pop("embeddings"),
                given.pop("references", None),
                own=given.pop("own", None),
                k1=k1,
                k2=k2,
                weight=weight,
            )
            given["embeddings"] = found
        return given


def of_flags(
    items: str | None, expand: Sequence[str] | None, rerank: Sequence[str] | None
) -> Ranking:
    """The ranking that flags ask for.

    Args:
      items: of --items.
      expand: of --expand_queries.
      rerank: of --rerank.

    Raises:
      InputError: they are not numbers, are out of their range, or do not go together.
    """
    if items == "nearest" and (expand or rerank):
        raise errors.InputError(
            "--items=nearest goes without --expand_queries and --rerank, which need one embedding"
            " of each item: set --items=mean."
        )
    return Ranking(
        items or "",
        _numbers("expand_queries", expand, "COUNT or COUNT,ALPHA", {"count": int, "alpha": float}),
        _numbers("rerank", rerank, "K1,K2,WEIGHT", {"k1": int, "k2": int, "weight": float}),
    )


def _numbers(flag, values, form, types):
    """The numbers of a flag; an alpha that is left out is 0."""
    if not values:
        return None
    whole = [*values, "0"] if len(values) == 1 and "alpha" in types else values
    try:
        found = [kind(value) for kind, value in zip(types.values(), whole, strict=True)]
    except ValueError as error:
        raise errors.InputError(f"--{flag}={','.join(values)} must be {form}.") from error
    return tuple(found)


def _expanded(given, count, alpha):
    """Queries among themselves search the rows as they are."""
    if "references" not in given:
        given |= {
            "references": given["embeddings"],
            "reference_labels": given["labels"],
            "own": np.arange(len(given["labels"])),
        }
    moved = evaluation.expand_queries(
        given["embeddings"],
        given["references"],
        own=given["own"],
        count=count,
        alpha=alpha,
        metric="euclidean",
    )
    return given | {"embeddings": moved}


def _of_items(embedded, how):
    """The arguments of `evaluation.retrieval`, where items search items."""
    _, codes = np.unique(embedded.items, return_inverse=True)
    asks, there = embedded.is_query, embedded.is_gallery
    queries, references = codes, codes
    if embedded.has_gallery:
        # An item is a query itself if one of its rows is on both sides. Other references have other
        # names.
        both = np.isin(codes, codes[asks & there])
        queries = codes[asks]
        references = np.where(both, codes, codes + codes.max() + 1)[there]
    given = {"labels": evaluation.of_items(embedded.labels[asks], queries), "ignore": None}
    if embedded.ignore is not None:
        given["ignore"] = tuple(
            evaluation.of_items(groups, items, name="groups")
            for groups, items in zip(embedded.ignore, (queries, references), strict=True)
        )
    if embedded.has_gallery:
        given["reference_labels"] = evaluation.of_items(embedded.labels[there], references)
    x = embedded.embeddings
    if how == "nearest":
        more = {"references": x[there], "reference_items": references, "same_names": True}
        if not embedded.has_gallery:
            more = {}
        return given | {"embeddings": evaluation.nearest_of_items(x[asks], queries, **more)}
    lengths = np.linalg.norm(x[np.isfinite(x).all(axis=1)], axis=1)
    unit = bool((np.abs(lengths - 1) < _UNIT).all())
    means, names = evaluation.mean_of_items(x[asks], queries, unit=unit)
    if embedded.has_gallery:
        among, others = evaluation.mean_of_items(x[there], references, unit=unit)
        place = {name: row for row, name in enumerate(others.tolist())}
        own = np.array([place.get(name, -1) for name in names.tolist()], int)
        given |= {"references": among, "own": own}
    return given | {"embeddings": means}
