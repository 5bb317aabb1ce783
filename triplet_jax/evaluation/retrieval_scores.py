"""The scores of each query, from which of its nearest references are positives."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from triplet_jax.devices import processes
from triplet_jax.evaluation import among_themselves, exact, neighbours
from triplet_jax.evaluation.computed_distances import Distances
from triplet_jax.evaluation.query_sets import Asked

# Where a larger share of the queries finds no threshold, as among ties, a top-k takes less time.
_FEW = 1 / 64


class Wanted(NamedTuple):
    """Which scores are computed, and by which metric or distances."""

    metric: str | Distances
    ks: tuple[int, ...]
    whole_ranking: bool

    @property
    def names(self) -> tuple[str, ...]:
        recall = [f"recall_at_{k}" for k in self.ks]
        names = ("precision_at_1", *recall, "r_precision", "map_at_r")
        if not self.whole_ranking:
            return names
        at_k = [f"{name}_at_{k}" for name in ("map", "ndcg") for k in self.ks]
        return (*names, *at_k, "map", "mrr", "minp")

    @property
    def deepest(self) -> int:
        """The last rank that these scores look at, where no query has more positives."""
        return max(self.ks, default=1)


def of_queries(asked: Asked, wanted: Wanted) -> dict[str, Float[np.ndarray, "queries"]]:
    """The scores of every query; those of one without positives mean nothing.

    In a run of several processes each of them scores a share of the queries.
    """
    finite = np.isfinite(asked.queries).all(axis=1)
    shares = [processes.own_share(x) for x in asked[:6]]
    here = asked._replace(**dict(zip(Asked._fields, (share for share, _ in shares), strict=False)))
    if wanted.whole_ranking or isinstance(wanted.metric, Distances):
        scores = {name: np.zeros(len(here.queries)) for name in wanted.names}
        unsure = np.ones(len(here.queries), bool)
    else:
        scores, unsure = _of_neighbours(here, wanted, asked)
    unsure &= _matter(here)
    _decide(scores, here, np.flatnonzero(unsure), wanted, len(asked.queries))
    scores = processes.all_shares(scores, len(asked.queries))
    return {name: np.where(finite, scores[name], 0.0) for name in wanted.names}


# -- by the nearest neighbours ------------------------------------------------------------


def _matter(here):
    """Which queries have a score that the search decides."""
    return np.isfinite(here.queries).all(axis=1) & (here.positives > 0)


def _of_neighbours(here, wanted, everything):
    """The scores of this share of the queries, and of which of them float32 is unsure."""
    available = len(here.references) - int((everything.own >= 0).any())
    deepest = int(min(max(everything.positives.max(), wanted.deepest), available))
    # One more than counts, to see whether it is as near as the last.
    shown = min(deepest + 1, available)
    if _among_themselves(here, everything, wanted, shown):
        found = among_themselves.nearest_rows(
            *map(np.asarray, neighbours.euclidean_form(here.references)), shown
        )
        if (_matter(here) & ~found.found).mean() < _FEW:
            return _of_nearest(here, wanted, found, deepest)
    found = _in_float32(
        jax.tree.map(jnp.asarray, here),
        deepest=deepest,
        shown=shown,
        ignores=bool(everything.ignored.any()),
        wanted=wanted,
    )
    scores = jax.tree.map(np.array, found)
    scores.pop("open")
    return scores, scores.pop("unsure")


def _among_themselves(here, everything, wanted, shown):
    """Whether all queries of a large search look for each other, and nothing else decides."""
    return (
        everything.queries is everything.references
        and len(here.queries) == len(everything.queries)
        and wanted.metric in ("euclidean", "squared_euclidean")
        and not everything.ignored.any()
        and bool((everything.own == np.arange(len(everything.own))).all())
        and among_themselves.pays(len(here.queries), shown)
    )


def _of_nearest(here, wanted, found, deepest):
    """The scores of queries whose nearest references are found.

    Those that float32 cannot order are ordered in float64. That leaves a query unsure only where
    its nearest are not found, or where others may be as near as the last of them.
    """
    judged = _of_first(jax.tree.map(jnp.asarray, here), found[:2], deepest=deepest, wanted=wanted)
    scores = jax.tree.map(np.array, judged)
    is_open = scores.pop("open") | ~found.found
    unsure = scores.pop("unsure") & _matter(here)
    # Among those found there is no query itself.
    apart = here._replace(own=np.full_like(here.own, -1))
    for row in np.flatnonzero(unsure & ~is_open):
        near = found.positions[row]
        some = apart._replace(**{name: getattr(here, name)[near] for name in Asked._fields[6:]})
        measured = exact.ordering(here.queries[row : row + 1], some.references, wanted.metric)
        _rank(scores, some, [row], wanted, *measured)
    return scores, is_open


@functools.partial(jax.jit, static_argnames=("deepest", "wanted"))
def _of_first(asked, first, *, deepest, wanted):
    """What `_judge` says of every query, whose first places are known."""
    ranking = neighbours.make_ranking(asked.references, wanted.metric)
    rows = jnp.arange(len(asked.queries))
    return _judge(asked, ranking, rows, asked.queries, first, deepest, wanted)


@functools.partial(jax.jit, static_argnames=("deepest", "shown", "ignores", "wanted"))
def _in_float32(asked, *, deepest, shown, ignores, wanted):
    """What `_judge` says of every query, whose first places a top-k finds."""
    ranking = neighbours.make_ranking(asked.references, wanted.metric)

    def of_tile(rows, some):
        mine, code, group = (
            x.at[rows].get(mode="clip") for x in (asked.own, asked.codes, asked.groups)
        )
        hidden = None
        if ignores:
            hidden = asked.reference_codes == code[:, None]
            hidden &= asked.reference_groups == group[:, None]
        first = ranking.first(some, mine, shown, hidden)
        return _judge(asked, ranking, rows, some, first, deepest, wanted)

    return neighbours.by_tiles(
        of_tile, asked.queries, tile=neighbours.tile_size(len(asked.references))
    )


def _judge(asked, ranking, rows, some, first, deepest, wanted):
    """The scores of some queries by the values and positions of their first references.

    `unsure` says of which queries the float32 product cannot tell the order, and `open` of which
    a reference that is not among the first may be as near as the last that counts.
    """
    value, position = first
    mine, code, group, r = (
        x.at[rows].get(mode="clip") for x in (asked.own, asked.codes, asked.groups, asked.positives)
    )
    of_class = asked.reference_codes[position] == code[:, None]
    # Where nothing is ignored, all groups are -1.
    ignored = of_class & (group >= 0)[:, None]
    ignored &= asked.reference_groups[position] == group[:, None]
    seen = jnp.all(jnp.isfinite(asked.references), axis=1)[position] & ~ignored
    relevant = of_class & seen
    depth = jnp.minimum(jnp.maximum(r, wanted.deepest), deepest)
    doubt = ranking.doubt(some, jnp.min(value, axis=1, where=seen, initial=jnp.inf))
    unsure = _unsure(value, relevant, depth, 2 * doubt)
    shown = value.shape[1]
    hides = len(asked.references) - (mine >= 0) > shown
    unsure |= hides & (shown == depth)
    last = jnp.take_along_axis(value, depth[:, None] - 1, axis=1)[:, 0]
    # Rounding may have moved the last that counts, and one that is not shown, towards each other.
    is_open = hides & ~(last - value[:, -1] > 2 * doubt)
    return _of_relevant(relevant[:, :deepest], jnp.maximum(r, 1), wanted.ks) | {
        "unsure": unsure,
        "open": unsure & is_open,
    }


def _unsure(value, relevant, depth, doubt):
    """Whether a positive and a negative, whose order matters, are too near each other to order."""
    last = jnp.arange(1, value.shape[1]) <= depth[:, None]
    near = ~(value[:, :-1] - value[:, 1:] > doubt[:, None])
    differ = relevant[:, :-1] != relevant[:, 1:]
    # Beyond the last that counts there may be others as near, which were not looked at.
    ends = jnp.arange(1, value.shape[1]) == depth[:, None]
    return jnp.any(last & near & (differ | ends), axis=1)


def _of_relevant(
    relevant: Bool[Array, "rows places"], r: Int[Array, "rows"], ks: tuple[int, ...]
) -> dict[str, Float[Array, "rows"]]:
    """The scores of each row of neighbours, nearest first, from which of them are positives."""
    places = relevant.shape[1]
    rank = jnp.arange(1, places + 1)
    hits = jnp.cumsum(relevant, axis=1)
    within = relevant & (rank <= r[:, None])
    recall = {f"recall_at_{k}": hits[:, min(k, places) - 1] > 0 for k in ks}
    return {name: 1.0 * found for name, found in recall.items()} | {
        "precision_at_1": 1.0 * relevant[:, 0],
        "r_precision": within.sum(axis=1) / r,
        "map_at_r": jnp.where(within, hits / rank, 0.0).sum(axis=1) / r,
    }


# -- by the rank of every positive, in float64 --------------------------------------------


def _decide(scores, here, rows, wanted, queries):
    """Puts in the scores of some queries, measured in float64.

    Euclidean distances come from one matrix product. What even that cannot order, such as equal
    rows, is measured as differences.
    """
    if not len(rows):
        return
    if isinstance(wanted.metric, Distances):
        number, _ = processes.own_share(np.arange(queries))
        for some in neighbours.in_parts(rows):
            _rank(scores, here, some, wanted, *wanted.metric.of_rows(number[some]))
        return
    by_product = wanted.metric in ("euclidean", "squared_euclidean")
    if by_product:
        references, there = here.references, np.isfinite(here.references).all(axis=1)
        if not there.all():
            references = np.where(there[:, None], references, np.float32(0))
        measure, doubt = exact.by_product(references, wanted.metric)
    for some in neighbours.in_parts(rows):
        if by_product:
            some = _rank(scores, here, some, wanted, measure(here.queries[some]), doubt=doubt)
        if len(some):
            measured = exact.ordering(here.queries[some], here.references, wanted.metric)
            _rank(scores, here, some, wanted, *measured)


def _rank(scores, here, rows, wanted, orders, aparts=None, doubt=None):
    """Puts in the scores of some queries by distances and by what makes two of them equal.

    Without `aparts`, two distances are equal if they differ by less than a share of themselves.

    Returns:
      The queries of which rounding may have changed a rank, by the `doubt` of the distances.
    """
    there = np.isfinite(here.references).all(axis=1)
    unsure = []
    for number, (row, order) in enumerate(zip(rows, orders, strict=True)):
        is_positive, is_negative = _found(here, int(row), there)
        reach, negative = order[is_positive], order[is_negative]
        apart = exact.EQUAL * reach if aparts is None else aparts[number][is_positive]
        reach = np.sort(reach + apart)
        error = 0.0
        if doubt is not None and len(reach):
            error = 2 * doubt(here.queries[row : row + 1], reach[-1:])
        ranks = _ranks(reach + error, negative)
        if doubt is not None and (ranks != _ranks(reach - error, negative)).any():
            unsure.append(row)
        of_row = of_ranks(ranks, int(here.positives[row]), wanted.ks)
        for name in scores:
            scores[name][row] = of_row[name]
    return np.array(unsure, int)


def _found(here, row, there):
    """Which references are the positives of a query, and which its negatives."""
    shown = there & ~here.left_out(row)
    of_class = here.reference_codes == here.codes[row]
    return shown & of_class, shown & ~of_class


def _ranks(reach, negative):
    """The ranks of positives, sorted, each behind the negatives that are within its reach.

    To count the negatives between two positives takes a fraction of the time of sorting them.
    """
    first_behind = np.searchsorted(reach, negative)
    ahead = np.cumsum(np.bincount(first_behind, minlength=len(reach) + 1)[: len(reach)])
    return ahead + np.arange(1, len(reach) + 1)


def of_ranks(ranks: Int[np.ndarray, " found"], r: int, ks: Sequence[int]) -> dict[str, float]:
    """The scores of a query from the ranks of those of its `r` positives that are found.

    Args:
      ranks: in rising order, from 1.
      r: how many positives there are.
      ks: each k of Recall, mAP and nDCG at k.
    """
    r, first = max(r, 1), ranks[0] if len(ranks) else np.inf
    precision, gain = np.arange(1, len(ranks) + 1) / ranks, 1 / np.log2(ranks + 1)
    scores = {
        "precision_at_1": float(first == 1),
        "r_precision": np.sum(ranks <= r) / r,
        "map_at_r": np.sum(precision[ranks <= r]) / r,
        "map": np.sum(precision) / r,
        "mrr": 1 / first,
        "minp": r / ranks[-1] if len(ranks) == r else 0.0,
    }
    for k in ks:
        most = min(r, k)
        scores[f"recall_at_{k}"] = float(first <= k)
        scores[f"map_at_{k}"] = np.sum(precision[ranks <= k]) / most
        ideal = np.sum(1 / np.log2(np.arange(2, most + 2)))
        scores[f"ndcg_at_{k}"] = np.sum(gain[ranks <= k]) / ideal
    return scores
