"""Distances in float64, for the few comparisons that float32 cannot decide."""

import numpy as np
from jaxtyping import Float

# Two distances that differ by less than this share of themselves are equal.
_EQUAL = 1e-12
_OF_DIFFERENCES = {
    "euclidean": "sqeuclidean",
    "squared_euclidean": "sqeuclidean",
    "manhattan": "cityblock",
}


def ordering(
    queries: Float[np.ndarray, "queries dim"],
    references: Float[np.ndarray, "references dim"],
    metric: str,
) -> tuple[Float[np.ndarray, "queries references"], Float[np.ndarray, "queries references"]]:
    """Numbers that rise with the distance, and the difference below which two of them are equal.

    The numbers are squared distances for `euclidean`, and distances for every other metric.

    Args:
      queries: rows `[queries, dim]`.
      references: rows `[references, dim]`.
      metric: the name of a metric without parameters in `distances.METRICS`.
    """
    a, b = queries.astype(np.float64), references.astype(np.float64)
    if metric in _OF_DIFFERENCES:
        import scipy.spatial.distance

        found = scipy.spatial.distance.cdist(a, b, _OF_DIFFERENCES[metric])
        return found, _EQUAL * found
    if metric == "jaccard":
        found = np.stack([_jaccard(row, b) for row in a])
        return found, _EQUAL * np.abs(found)
    lengths = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1)
    if metric == "cosine":
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (a, b))
        lengths = np.ones_like(lengths[0]), np.ones_like(lengths[1])
    return 1.0 - a @ b.T, _EQUAL * lengths[0] * lengths[1]


def _jaccard(row, others):
    most = np.maximum(row, others).sum(axis=1)
    nothing = most <= 1e-15  # as in `distances.jaccard`
    share = np.minimum(row, others).sum(axis=1) / np.where(nothing, 1.0, most)
    return np.where(nothing, 0.0, 1.0 - share)
