"""Queries that are moved towards what they find first."""

import numpy as np
from jaxtyping import Float

from triplet_jax import arguments, errors
from triplet_jax.evaluation import exact, neighbours
from triplet_jax.evaluation.near_sets import near_sets

METRICS = ("cosine", "euclidean")
# The most rows of references that are gathered at a time.
_ROWS = 2**15


def expand_queries(
    embeddings: arguments.Embeddings,
    references: arguments.Embeddings | None = None,
    *,
    own: arguments.Labels | None = None,
    count: int = 10,
    alpha: float = 0.0,
    metric: str = "cosine",
) -> Float[np.ndarray, "queries dim"]:
    """Replaces each query by the mean of itself and its nearest references.

        q' = (q + sum_i w_i r_i) / (1 + sum_i w_i),   w_i = max(cos(q, r_i), 0)^alpha

    over the `count` nearest references r_i. With alpha 0 every w_i is 1: the average query
    expansion of Chum et al. 2007, "Total Recall", https://doi.org/10.1109/ICCV.2007.4408891. With
    alpha 3 it is that of Radenovic et al. 2018, https://arxiv.org/abs/1711.02512. Search by the
    result, among references as they are. Without references each row is moved towards the others,
    which is how references themselves are augmented.

    Labels play no part, so that references that `ignore` of `retrieval` leaves out count here.
    Equally near references come in together; where they would be more than `count`, none of them
    does. So the order of the references plays no part, and equal rows tie as they did before.
    References that are not finite are never found, and queries that are not stay as they are.

    The time is that of all distances from queries to references in float64, and the memory that of
    a tile of them.

    Args:
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      count: how many references are the nearest.
      alpha: how much more the nearest of them weigh; at least 0.
      metric: "cosine" takes rows divided by their lengths and returns such rows; "euclidean" takes
        and returns rows as they are, and w_i from the cosine all the same.

    Returns:
      The expanded queries, `[queries, dim]` in float32.

    Raises:
      InputError: a number is out of its range, the metric is not one of these, or an array has
        another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.expand_queries(
      ...     [[1.0, 0.0]], [[3.0, 4.0], [-9.0, 0.0]], count=1, metric="euclidean"
      ... )
      >>> print(found)
      [[2. 2.]]
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise errors.InputError(f"count={count!r} must be a whole number of at least 1.")
    if not 0 <= alpha < np.inf:
        raise errors.InputError(f"alpha={alpha!r} must be a finite number of at least 0.")
    errors.check_known("metric", metric, METRICS)
    queries, among, own = neighbours.searched(embeddings, references, own)
    there, finite = (np.isfinite(x).all(axis=1) for x in (among, queries))
    expanded = queries.astype(np.float64)
    if there.any():
        at = np.where(own >= 0, np.where(there, np.cumsum(there) - 1, -1)[own], -1)
        expanded[finite] = _expanded(
            queries[finite], among[there], at[finite], int(count), alpha, metric
        )
    if metric == "cosine":
        expanded[finite] = exact.directions(expanded[finite])
    return expanded.astype(np.float32)


def _expanded(queries, references, own, count, alpha, metric):
    near = near_sets(queries, references, own, ks=(count,), metric=metric)
    found = np.zeros(queries.shape)
    shown = near.positions.shape[1]
    part = max(1, _ROWS // shown)
    for start in range(0, len(queries), part):
        rows = slice(start, start + part)
        q = queries[rows].astype(np.float64)
        r = references[near.positions[rows]].astype(np.float64)
        of_q, of_r = exact.directions(q), exact.directions(r)
        weight = np.maximum(np.einsum("qd,qrd->qr", of_q, of_r), 0.0) ** alpha
        weight *= np.arange(shown) < near.counts[count][rows, None]
        if metric == "cosine":
            q, r = of_q, of_r
        total = 1 + weight.sum(axis=1)
        found[rows] = (q + np.einsum("qr,qrd->qd", weight, r)) / total[:, None]
    return found
