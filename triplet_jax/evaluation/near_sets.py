"""The nearest references of rows as sets, which do not depend on the order of the references."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from triplet_jax.evaluation import exact

# The most distances of a tile of queries to all references.
_VALUES = 2**23
_TILE = 256
# This many more than are asked for are measured, which decides most ties.
_SPARE = 8


class Near(NamedTuple):
    """The nearest references of every query."""

    positions: Int[np.ndarray, "queries deepest"]
    """Nearest first; those after the counts mean nothing."""
    counts: dict[int, Int[np.ndarray, "queries"]]
    """For each k how many of the positions are the k nearest."""
    farthest: Float[np.ndarray, "queries"]
    """The number that `exact.ordering` gives for the farthest reference."""


def near_sets(
    queries: Float[np.ndarray, "queries dim"],
    references: Float[np.ndarray, "references dim"],
    own: Int[np.ndarray, "queries"],
    *,
    ks: Sequence[int],
    metric: str,
) -> Near:
    """The k nearest references of every query, for each k.

    References that are equally near come in together or not at all. Where they would be more than
    k, none of them is among the nearest, so that a set may have fewer than k members. Distances are
    in float64, and equal where they differ by less than 1e-12 of themselves.

    Args:
      queries: finite rows `[queries, dim]`.
      references: finite rows `[references, dim]`, at least one.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is.
      ks: how many are the nearest.
      metric: the name of a metric without parameters in `distances.METRICS`.
    """
    deepest = min(max(ks), len(references))
    numbers, doubt = exact.by_product(references, metric)
    positions = np.zeros((len(queries), deepest), np.int32)
    ordered = np.full((len(queries), deepest + 1), np.inf)
    farthest = np.zeros(len(queries))
    tile = max(1, min(_TILE, _VALUES // len(references)))
    for start in range(0, len(queries), tile):
        rows = slice(start, start + tile)
        some, mine = queries[rows], own[rows]
        found = numbers(some)
        far = references[np.argmax(found, axis=1)]
        farthest[rows] = exact.between(some, far, metric)
        here = np.flatnonzero(mine >= 0)
        found[here, mine[here]] = np.inf
        at, distance, sure = _first(some, references, mine, found, doubt, deepest, metric)
        positions[rows], ordered[rows] = at[:, :deepest], distance
        for row in np.flatnonzero(~sure):
            at, distance = _by_difference(
                some[row], references, int(mine[row]), found[row], doubt, deepest, metric
            )
            positions[start + row, : len(at)] = at
            ordered[start + row] = distance
    return Near(positions, {k: _counts(ordered, k, metric) for k in ks}, farthest)


def _first(some, references, own, found, doubt, deepest, metric):
    """The nearest of each row and their distances, and whether rounding can have lost one."""
    shown = min(deepest + 1 + _SPARE, len(references))
    at = np.argpartition(found, shown - 1, axis=1)[:, :shown]
    last = np.take_along_axis(found, at, axis=1).max(axis=1)
    pairs = np.repeat(some, shown, axis=0), references[at.reshape(-1)]
    distance = exact.between(*pairs, metric).reshape(at.shape)
    distance[at == own[:, None]] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")
    at, distance = (np.take_along_axis(x, order, axis=1) for x in (at, distance))
    if shown <= deepest:
        distance = np.pad(distance, ((0, 0), (0, 1)), constant_values=np.inf)
    distance = distance[:, : deepest + 1]
    if shown == len(references):
        return at, distance, np.ones(len(some), bool)
    return at, distance, distance[:, deepest] + 2 * doubt(some, last) < last


def _by_difference(query, references, own, found, doubt, deepest, metric):
    """The nearest of one row, of all that may be as near as the last that counts."""
    last = np.partition(found, deepest)[deepest : deepest + 1]
    within = np.flatnonzero(found <= last + 4 * doubt(query[None], last))
    within = within[within != own]
    distance = exact.between(
        np.broadcast_to(query, (len(within), len(query))), references[within], metric
    )
    order = np.argsort(distance, kind="stable")[: deepest + 1]
    filled = np.full(deepest + 1, np.inf)
    filled[: len(order)] = distance[order]
    return within[order[:deepest]], filled


def _counts(ordered, k, metric):
    """How many of the first k there are up to the last gap."""
    k = min(k, ordered.shape[1] - 1)
    before, after = ordered[:, :k], ordered[:, 1 : k + 1]
    equal = exact.EQUAL * (1.0 if metric == "cosine" else np.where(before < np.inf, before, 0.0))
    with np.errstate(invalid="ignore"):
        gap = after - before > equal
    ends = np.concatenate([np.ones((len(ordered), 1), bool), gap], axis=1)
    return k - np.argmax(ends[:, ::-1], axis=1)
