"""Retrieval scores where a matrix says how relevant each reference is to each query."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import arguments, distances, errors
from triplet_jax.evaluation import exact, neighbours


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
    errors.check_known("metric", metric, distances.METRICS)
    if min(ks, default=1) < 1:
        raise errors.InputError(f"ks={tuple(ks)} must be at least 1 each.")
    queries = arguments.embeddings(embeddings)
    among = queries
    if references is not None:
        among = arguments.embeddings(references, name="references")
        neighbours.check_width(queries, among)
    own = neighbours.own_positions(own, queries, references)
    gains = _gains(relevance, (len(queries), len(among)), own)
    finite, there = (np.isfinite(x).all(axis=1) for x in (queries, among))
    counted = (gains > 0).any(axis=1)
    parts = [
        _of_ranked(_ranked(queries[rows], among, gains[rows], own[rows], there, metric), ks)
        for rows in neighbours.in_parts(np.flatnonzero(counted & finite))
    ]
    names = _of_ranked((np.ones((1, 1)), np.ones((1, 1))), ks)
    # A query that is not finite scores 0, but counts.
    means = {
        name: sum(part[name].sum() for part in parts) / counted.sum() if counted.any() else math.nan
        for name in names
    }
    return {name: float(mean) for name, mean in means.items()} | {
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
) -> tuple[Float[np.ndarray, "queries places"], Float[np.ndarray, "queries places"]]:
    """The relevance of the first, second, ... nearest reference, and of the best possible order."""
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
    found = np.take_along_axis(found, np.lexsort((found, tie)), axis=1)
    return found, -np.sort(-gains, axis=1)


def _of_ranked(ranked, ks):
    """The scores of each query."""
    gains, ideal = ranked
    relevant, r = gains > 0, (ideal > 0).sum(axis=1)
    rank = np.arange(1, gains.shape[1] + 1)
    precision = np.where(relevant, np.cumsum(relevant, axis=1) / rank, 0.0)
    within = rank <= r[:, None]
    first = np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1, np.inf)
    last = gains.shape[1] - relevant[:, ::-1].argmax(axis=1)
    scores = {
        "precision_at_1": 1.0 * relevant[:, 0],
        "r_precision": (relevant & within).sum(axis=1) / r,
        "map_at_r": (precision * within).sum(axis=1) / r,
        "map": precision.sum(axis=1) / r,
        "mrr": 1 / first,
        "minp": np.where(relevant.sum(axis=1) == r, r / last, 0.0),
    }
    discount = np.log2(rank + 1)
    for k in ks:
        scores[f"recall_at_{k}"] = 1.0 * (first <= k)
        scores[f"map_at_{k}"] = precision[:, :k].sum(axis=1) / np.minimum(r, k)
        of_ideal = (ideal / discount)[:, :k].sum(axis=1)
        scores[f"ndcg_at_{k}"] = (gains / discount)[:, :k].sum(axis=1) / of_ideal
    return scores
