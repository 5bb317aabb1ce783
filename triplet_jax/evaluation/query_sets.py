"""Queries, the references that each of them searches, and those that it leaves out."""

import collections
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class Asked(NamedTuple):
    """Queries, or a share of them, and the references that they search."""

    queries: Float[np.ndarray, "queries dim"]
    codes: Int[np.ndarray, "queries"]
    """The class of each query, as a number from 0."""
    own: Int[np.ndarray, "queries"]
    """The position of the reference that is the query itself, or -1."""
    groups: Int[np.ndarray, "queries"]
    """A query ignores the references of its class and group; all are -1 where none does."""
    positives: Int[np.ndarray, "queries"]
    """How many references of its class a query searches."""
    ignored: Int[np.ndarray, "queries"]
    """How many references a query ignores."""
    references: Float[np.ndarray, "references dim"]
    reference_codes: Int[np.ndarray, "references"]
    reference_groups: Int[np.ndarray, "references"]

    def left_out(self, row: int) -> Bool[np.ndarray, "references"]:
        """Which references one query does not search."""
        found = np.arange(len(self.references)) == self.own[row]
        if self.groups[row] >= 0:
            found |= (self.reference_codes == self.codes[row]) & (
                self.reference_groups == self.groups[row]
            )
        return found

    def found_themselves(self) -> int:
        """How many queries search an equal row of their class."""
        equal = collections.defaultdict(list)
        for position, row in enumerate(self.references):
            equal[row.tobytes()].append(position)
        found = 0
        for number, row in enumerate(self.queries):
            at = np.array(equal.get(row.tobytes(), []), int)
            at = at[(self.reference_codes[at] == self.codes[number]) & (at != self.own[number])]
            others = self.groups[number] != self.reference_groups[at]
            found += bool(others.any() if self.groups[number] >= 0 else len(at))
        return found


def ask(
    queries: Float[np.ndarray, "queries dim"],
    codes: Int[np.ndarray, "queries"],
    own: Int[np.ndarray, "queries"],
    references: Float[np.ndarray, "references dim"],
    reference_codes: Int[np.ndarray, "references"],
    groups: tuple[Int[np.ndarray, "queries"], Int[np.ndarray, "references"]] | None,
) -> Asked:
    """Counts for each query what it searches and what it ignores.

    Args:
      queries: rows `[queries, dim]`.
      codes: their classes, as numbers from 0.
      own: for each query its position among the references, or -1.
      references: rows `[references, dim]`.
      reference_codes: their classes.
      groups: the groups of both, as numbers from 0; None where nothing is ignored.
    """
    here = np.flatnonzero(own >= 0)
    is_own = np.zeros(len(own), bool)
    is_own[here] = reference_codes[own[here]] == codes[here]
    positives = _matches(codes, reference_codes) - is_own
    ignored = np.zeros_like(positives)
    of_queries, of_references = groups or (
        np.full_like(codes, -1),
        np.full_like(reference_codes, -1),
    )
    if groups is not None:
        number = 1 + max(of_queries.max(initial=0), of_references.max(initial=0))
        ignored = _matches(codes * number + of_queries, reference_codes * number + of_references)
        own_ignored = np.zeros(len(own), bool)
        own_ignored[here] = of_references[own[here]] == of_queries[here]
        ignored = ignored - (is_own & own_ignored)
    return Asked(
        queries,
        codes,
        own,
        of_queries,
        positives - ignored,
        ignored,
        references,
        reference_codes,
        of_references,
    )


def _matches(codes, reference_codes):
    """How many of the second have the number of each of the first."""
    numbers, count = np.unique(reference_codes, return_counts=True)
    at = np.minimum(np.searchsorted(numbers, codes), len(numbers) - 1)
    return np.where(numbers[at] == codes, count[at], 0) if len(numbers) else np.zeros_like(codes)
