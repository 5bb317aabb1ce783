"""Distances in float64, for comparisons that float32 cannot decide."""

import inspect
from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Float

from triplet_jax import distances, errors

# Those that need no parameters, of which there is nobody to ask here.
METRICS = [
    name for name, make in distances.METRICS.items() if not inspect.signature(make).parameters
]
# Two distances that differ by less than this share of themselves are equal.
EQUAL = 1e-12
_OF_DIFFERENCES = {
    "euclidean": "sqeuclidean",
    "squared_euclidean": "sqeuclidean",
    "manhattan": "cityblock",
}


def check_metric(metric: str, allowed: Collection[str] = METRICS) -> None:
    """Refuses a metric that rows cannot be ranked by.

    Raises:
      InputError: the name is not one of `allowed`.
    """
    if metric in distances.METRICS and metric not in METRICS:
        raise errors.InputError(
            f"metric={metric!r} takes parameters, and rows are ranked by metrics without any:"
            f" {', '.join(sorted(allowed))}. Map the rows first, or give Distances of your own."
        )
    errors.check_known("metric", metric, allowed)


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
        return found, EQUAL * found
    if metric == "jaccard":
        found = np.stack([_jaccard(row, b) for row in a])
        return found, EQUAL * np.abs(found)
    if metric == "signal_to_noise":
        found = np.stack([_signal_to_noise(row[None], b) for row in a])
        return found[..., 0], EQUAL * found[..., 0] + EQUAL**2 * found[..., 1]
    lengths = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1)
    if metric == "cosine":
        a, b = directions(a), directions(b)
        lengths = np.ones_like(lengths[0]), np.ones_like(lengths[1])
    return 1.0 - a @ b.T, EQUAL * lengths[0] * lengths[1]


def between(
    first: Float[np.ndarray, "rows dim"], second: Float[np.ndarray, "rows dim"], metric: str
) -> Float[np.ndarray, "rows"]:
    """The numbers of `ordering` from row i of one array to row i of the other.

    Args:
      first: rows `[rows, dim]`.
      second: rows `[rows, dim]`.
      metric: as in `ordering`.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    if metric in ("euclidean", "squared_euclidean"):
        return np.einsum("ij,ij->i", a - b, a - b)
    if metric == "manhattan":
        return np.abs(a - b).sum(axis=1)
    if metric == "jaccard":
        return _jaccard(a, b)
    if metric == "signal_to_noise":
        return _signal_to_noise(a, b)[:, 0]
    if metric == "cosine":
        a, b = directions(a), directions(b)
    return 1.0 - np.einsum("ij,ij->i", a, b)


def by_product(
    references: Float[np.ndarray, "references dim"], metric: str
) -> tuple[Callable, Callable]:
    """The numbers of `ordering` by one product of matrices in float64, where there is one.

    That is much faster, and moves a Euclidean distance by some 1e-16 of the square of what lies
    between its two rows and the centre of the references.

    Args:
      references: finite rows `[references, dim]`.
      metric: as in `ordering`.

    Returns:
      Two functions. One takes queries `[queries, dim]` and returns `[queries, references]`. The
      other takes the queries and a number for each, and returns how far rounding may have moved
      this number or any below it.
    """
    unit_of_error = (references.shape[1] + 4) * np.finfo(np.float64).eps
    if metric in ("euclidean", "squared_euclidean"):
        centre = references.mean(axis=0, dtype=np.float64)
        columns = references - centre
        squared = np.einsum("ij,ij->i", columns, columns)

        def numbers(queries):
            q = queries - centre
            found = q @ columns.T
            found *= -2
            found += squared
            found += np.einsum("ij,ij->i", q, q)[:, None]
            return np.maximum(found, 0.0, out=found)

        def doubt(queries, most):
            # The query's distance from the centre, plus the largest that a reference as near can
            # have.
            reach = 2 * np.linalg.norm(queries - centre, axis=1) + np.sqrt(most)
            return unit_of_error * reach**2

        return numbers, doubt
    if metric == "cosine":
        columns = directions(references.astype(np.float64))
        return (
            lambda queries: 1.0 - directions(queries.astype(np.float64)) @ columns.T,
            lambda queries, most: np.full(len(queries), unit_of_error),
        )
    return (
        lambda queries: ordering(queries, references, metric)[0],
        lambda queries, most: unit_of_error * np.abs(most),
    )


def directions(x: Float[np.ndarray, "... dim"]) -> Float[np.ndarray, "... dim"]:
    """Rows divided by their lengths; rows of zeros stay so."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


def _jaccard(row, others):
    most = np.maximum(row, others).sum(axis=1)
    nothing = most <= 1e-15  # as in `distances.jaccard`
    share = np.minimum(row, others).sum(axis=1) / np.where(nothing, 1.0, most)
    return np.where(nothing, 0.0, 1.0 - share)


def _signal_to_noise(anchors, others):
    """Of each row the distance, and what it would be if the mean difference were noise too."""
    difference = others - anchors
    noise = np.sum((difference - difference.mean(axis=1, keepdims=True)) ** 2, axis=1)
    centred = anchors - anchors.mean(axis=1, keepdims=True)
    signal = np.sum(centred**2, axis=1)
    is_rounding = signal <= 1e-12 * np.sum(anchors**2, axis=1)  # as in `distances.signal_to_noise`
    signal = np.where(is_rounding, anchors.shape[1], signal)
    return np.stack([noise / signal, np.sum(difference**2, axis=1) / signal], axis=1)
