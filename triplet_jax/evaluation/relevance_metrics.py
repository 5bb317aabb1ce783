"""Retrieval scores where a matrix says how relevant each reference is to each query."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import arguments, errors
from triplet_jax.evaluation import exact, neighbours, retrieval_scores


def retrieval_by_relevance(
    embeddings: arguments.Embeddings,
    relevance: Any,
    *,
    references: arguments.Embeddings | None = None,
    own: Any = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, int | float]:
    """Scores how well queries find what is relevant to them, where one label can't say what is.

    Items may have several labels, or people judged pairs. With g(i) the relevance of the i-th
    nearest reference, its rel(i) is 1 where g(i) is above 0, and R is the number of references
    above 0. The scores are those of `retrieval` with its whole ranking, and

        nDCG@k    sum_{i <= k} g(i) / log2(i + 1), over its largest possible value

    of Jarvelin and Kekalainen 2002, https://doi.org/10.1145/582415.582418. Where papers gain
    2^g - 1, pass that as the relevance.

    All distances are measured in float64. Ties count against the query: of references whose
    distances differ by less than 1e-12 of themselves, the less relevant come first. Memory is that
    of the matrix; for sets with one label a row, `retrieval` is much faster and needs no matrix.

    Args:
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32.
      relevance: `[queries, references]`, booleans or numbers of at least 0. For items with several
        labels, of zeros and ones: `labels @ labels.T`, the number of labels in common.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour, whatever the matrix says of it.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      metric: the name of a metric without parameters in `distances.METRICS`.
      ks: each k of Recall, mAP and nDCG at k; one larger than the number of references counts as
        that number.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision`, `map_at_r`, `map_at_<k>`, `ndcg_at_<k>`,
      `map`, `mrr` and `minp`, the means over the queries for which something is relevant; NaN
      without any. And `queries`, their number; `queries_without_positives`, of the others; and
      `queries_not_finite` and `references_not_finite`, the numbers of rows with NaN or infinite
      values, which score 0 and are never found.

    Raises:
      InputError: the metric is not known, a k is below 1, or an array has another shape or type, or
        the relevance is negative or not finite.

    Example:
      Pictures of a beach with a dog, a dog, and a boat; the dog's own picture is found second.

      >>> import numpy as np
      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [1.0], [0.4]], np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
      >>> found = evaluation.retrieval_by_relevance(x, labels @ labels.T, ks=(2,))
      >>> print(found["queries"], found["precision_at_1"], found["map"])
      2 0.0 0.5
    """
    exact.check_metric(metric)
    if min(ks, default=1) < 1:
        raise errors.InputError(f"ks={tuple(ks)} must be at least 1 each.")
    queries, among, own = neighbours.searched(embeddings, references, own)
    gains = _gains(relevance, (len(queries), len(among)), own)
    finite, there = (np.isfinite(x).all(axis=1) for x in (queries, among))
    counted = (gains > 0).any(axis=1)
    scores = [
        _of_query(ranked, gains[row], ks)
        for rows in neighbours.in_parts(np.flatnonzero(counted & finite))
        for row, ranked in zip(
            rows, _ranked(queries[rows], among, gains[rows], own[rows], there, metric), strict=True
        )
    ]
    # A query that is not finite scores 0, but counts.
    count = counted.sum() or math.nan
    names = retrieval_scores.Wanted(metric, tuple(ks), whole_ranking=True).names
    return {name: float(sum(each[name] for each in scores) / count) for name in names} | {
        "queries": int(counted.sum()),
        "queries_without_positives": int((~counted).sum()),
        "queries_not_finite": int((~finite).sum()),
        "references_not_finite": int((~there).sum()),
    }


def _gains(
    relevance: Any, shape: tuple[int, int], own: Int[np.ndarray, "queries"]
) -> Float[np.ndarray, "queries references"]:
    """The relevance in float64, 0 of each query to itself."""
    found = np.asarray(relevance)
    if found.shape != shape or found.dtype.kind not in "biuf":
        raise errors.InputError(
            f"relevance has the shape {found.shape} and the type {found.dtype}, and must be numbers"
            f" {shape}: a row for each query and a column for each reference."
        )
    found = found.astype(np.float64)
    here = np.flatnonzero(own >= 0)
    found[here, own[here]] = 0.0
    if not np.isfinite(found).all() or (found < 0).any():
        raise errors.InputError("relevance must be finite and at least 0: 0 is not relevant.")
    return found


def _ranked(
    queries: Float[np.ndarray, "queries dim"],
    references: Float[np.ndarray, "references dim"],
    gains: Float[np.ndarray, "queries references"],
    own: Int[np.ndarray, "queries"],
    there: np.ndarray,
    metric: str,
) -> Float[np.ndarray, "queries places"]:
    """The relevance of the first, second, ... nearest reference of each query."""
    order, apart = exact.ordering(queries, references, metric)
    apart = np.broadcast_to(apart, order.shape)
    hidden = np.broadcast_to(~there, order.shape).copy()
    here = np.flatnonzero(own >= 0)
    hidden[here, own[here]] = True
    order = np.where(hidden, np.inf, order)
    nearest = np.argsort(order, axis=1)
    order, apart = (np.take_along_axis(x, nearest, axis=1) for x in (order, apart))
    with np.errstate(invalid="ignore"):  # of those that are hidden
        is_farther = order[:, 1:] - order[:, :-1] > apart[:, 1:]
    tie = np.cumsum(np.pad(is_farther, [(0, 0), (1, 0)]), axis=1)
    tie[~np.isfinite(order)] = order.shape[1]
    found = np.take_along_axis(np.where(hidden, 0.0, gains), nearest, axis=1)
    return np.take_along_axis(found, np.lexsort((found, tie)), axis=1)


def _of_query(
    ranked: Float[np.ndarray, " places"], gains: Float[np.ndarray, "references"], ks: Sequence[int]
) -> dict[str, float]:
    """The scores of a query, from the relevance by rank and of all references."""
    ranks, positives = np.flatnonzero(ranked > 0) + 1, int((gains > 0).sum())
    scores = retrieval_scores.of_ranks(ranks, positives, ks)
    discount = np.log2(np.arange(2, len(ranked) + 2))
    best = -np.sort(-gains)
    for k in ks:
        found, ideal = (np.sum((x / discount)[:k]) for x in (ranked, best))
        scores[f"ndcg_at_{k}"] = found / ideal
    return scores
