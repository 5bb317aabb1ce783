"""Re-ranking by the neighbours that a query and a reference have in common."""

import functools

import numpy as np
import scipy

from triplet_jax import arguments, errors
from triplet_jax.evaluation import exact, neighbours
from triplet_jax.evaluation.computed_distances import Distances
from triplet_jax.evaluation.near_sets import near_sets

# How many rows of a sparse product, and how many pairs of rows, are in memory at a time.
_ROWS = 4096
_PAIRS = 2**14
# Distances lie in [0, 1]. Those that differ by less are equal.
_EQUAL = 1e-12


def k_reciprocal(
    embeddings: arguments.Embeddings,
    references: arguments.Embeddings | None = None,
    *,
    own: arguments.Labels | None = None,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    metric: str = "euclidean",
) -> Distances:
    """Distances of Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal
    Encoding", https://arxiv.org/abs/1701.08398, by which `retrieval` ranks in place of embeddings.

    All rows, queries and references, are searched together. d(i, j) is their distance, squared if
    it is Euclidean, divided by the largest one from i. N(i, k) is i with its k nearest others, and

        R(i, k)    the j of N(i, k) for which i is in N(j, k)
        R*(i)      R(i, k1), and each R(j, k1 / 2) of a j in R(i, k1) of which more than two thirds
                   are in R(i, k1)
        v(i)_j     exp(-d(i, j)) for j in R*(i), else 0; divided by their sum
        V(i)       the mean of v(j) over j in N(i, k2 - 1)
        J(q, r)    1 - sum_j min(V(q)_j, V(r)_j) / sum_j max(V(q)_j, V(r)_j)

    The distance from a query to a reference is `(1 - weight) J(q, r) + weight d(q, r)`. The paper
    says less of some points, which are here as in its authors' program: the division of d and of v,
    "more than" two thirds where equation 5 has "at least", `k1 / 2` rounded to an even number where
    it ends in a half, and k2 nearest that include i itself.

    Labels play no part. So references that `ignore` of `retrieval` leaves out count as neighbours
    and are left out of the ranking alone, as in that program. A query that is a reference by `own`
    is in the set once, unless it was changed since and the two rows differ. Rows that are not
    finite are nobody's neighbours.

    Equally near rows come into N(i, k) together; where they would be more than k, none of them
    does. So the distances do not depend on the order of the rows, a constant embedding still scores
    0, and more than k1 equal rows are no neighbours of each other. In `retrieval` two of these
    distances are equal where they differ by less than 1e-12.

    Everything is computed in float64, on the CPU. The nearest neighbours of all rows take the time
    of all their distances, `(queries + references)^2`, and memory for a tile of them. What is kept
    is sparse: about `k1 k2` numbers a row. Of several processes each computes this alone.

    Args:
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      k1: how many nearest rows may be reciprocal neighbours.
      k2: how many rows, with itself, a row takes the mean of; 1 for none.
      weight: of the distance itself, in [0, 1]: the lambda of the paper.
      metric: the name of a metric without parameters in `distances.METRICS`; not "dot", by which a
        row need not be nearest to itself.

    Raises:
      InputError: a number is out of its range, the metric is not one of these, or an array has
        another shape or type.

    Example:
      The reference at 1.4 is nearer to the query than that at -1.5, but has nearer ones itself.

      >>> from triplet_jax import evaluation
      >>> x, labels = [[-1.5], [1.4], [1.6], [2.0]], ["a", "b", "b", "b"]
      >>> plain = evaluation.retrieval([[0.0]], ["a"], references=x, reference_labels=labels)
      >>> near = evaluation.k_reciprocal([[0.0]], x, k1=2, k2=1)
      >>> again = evaluation.retrieval(near, ["a"], reference_labels=labels)
      >>> print(plain["precision_at_1"], again["precision_at_1"])
      0.0 1.0
    """
    _check(k1, k2, weight, metric)
    queries, among, own = neighbours.searched(embeddings, references, own)
    items, of_queries, there = _items(queries, among, own)
    if not len(items):
        return Distances(queries, among, own, lambda rows: _nowhere(len(rows), len(among)))
    encoded, farthest = _encode(items, k1, k2, metric)
    searched = _Searched(
        items, encoded, farthest, np.flatnonzero(there), len(there), weight, metric
    )
    return Distances(queries, among, own, lambda rows: searched.distances(of_queries[rows]))


def _check(k1, k2, weight, metric):
    for name, k in (("k1", k1), ("k2", k2)):
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise errors.InputError(f"{name}={k!r} must be a whole number of at least 1.")
    if not 0 <= weight <= 1:
        raise errors.InputError(f"weight={weight!r} must be in [0, 1].")
    exact.check_metric(metric, set(exact.METRICS) - {"dot"})


def _items(queries, among, own):
    """All finite rows, each once: references first, then queries that are none of them.

    Returns:
      The rows, the number of each query among them, and which references are finite.
    """
    there, finite = (np.isfinite(x).all(axis=1) for x in (among, queries))
    is_reference = (own >= 0) & finite
    is_reference[is_reference] = (among[own[is_reference]] == queries[is_reference]).all(axis=1)
    new = finite & ~is_reference
    number = np.zeros(len(queries), int)
    number[is_reference] = (np.cumsum(there) - 1)[own[is_reference]]
    number[new] = there.sum() + np.arange(new.sum())
    return np.concatenate([among[there], queries[new]]), number, there


def _nowhere(rows, references):
    return np.full((rows, references), np.inf), np.zeros((rows, references))


# -- encodings ----------------------------------------------------------------------------


def _encode(items, k1, k2, metric):
    """The sparse encoding V of every row, and its largest distance."""
    half = round(k1 / 2)
    near = near_sets(
        items, items, np.arange(len(items)), ks=sorted({k1, half, k2 - 1}), metric=metric
    )
    members = {k: _members(near, k) for k in near.counts}
    expanded = _expanded(_reciprocal(members[k1]), _reciprocal(members[half]))
    encoded = _weighted(expanded, items, near.farthest, metric)
    if k2 > 1:
        encoded = _of_sum_1(members[k2 - 1].astype(np.float64)) @ encoded
    return encoded.tocsr(), near.farthest


def _members(near, k):
    """N(i, k) as the rows of a sparse matrix of ones."""
    count = near.counts[k]
    own = np.arange(len(count))
    shown = np.arange(near.positions.shape[1]) < count[:, None]
    rows = np.concatenate([own, np.repeat(own, count)])
    columns = np.concatenate([own, near.positions[shown]])
    ones = np.ones(len(rows), np.int32)
    return scipy.sparse.csr_array((ones, (rows, columns)), shape=(len(own), len(own)))


def _reciprocal(members):
    return members.multiply(members.T).tocsr()


def _expanded(found, half):
    """R*, from R of k1 and of half of it, which are symmetric."""
    size = np.diff(half.indptr)
    parts = []
    for start in range(0, found.shape[0], _ROWS):
        some = found[start : start + _ROWS]
        common = (some @ half).multiply(some).tocsr()
        common.data = (3 * common.data > 2 * size[common.indices]).astype(np.int32)
        parts.append(some + common @ half)
    joined = scipy.sparse.vstack(parts, format="csr")
    joined.eliminate_zeros()
    joined.sort_indices()
    return joined


def _weighted(pattern, items, farthest, metric):
    rows = np.repeat(np.arange(len(items)), np.diff(pattern.indptr))
    columns = pattern.indices
    weights = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        far = exact.between(items[rows[part]], items[columns[part]], metric)
        weights[part] = np.exp(-_share(far, farthest[rows[part]]))
    weights[rows == columns] = 1.0
    return _of_sum_1(scipy.sparse.csr_array((weights, columns, pattern.indptr), pattern.shape))


def _share(distance, farthest):
    """Distances divided by the largest; all are 0 where that is."""
    return np.where(farthest > 0, distance / np.where(farthest > 0, farthest, 1.0), 0.0)


def _of_sum_1(matrix):
    return scipy.sparse.diags_array(1 / matrix.sum(axis=1)) @ matrix


# -- distances ----------------------------------------------------------------------------


class _Searched:
    """The references, encoded, from which distances of some rows at a time are computed."""

    def __init__(self, items, encoded, farthest, positions, references, weight, metric):
        self._items = items
        self._encoded = encoded
        self._farthest = farthest
        self._positions = positions
        self._references = references
        self._weight = weight
        self._metric = metric

    @functools.cached_property
    def _by_product(self):
        return exact.by_product(self._items[: len(self._positions)], self._metric)[0]

    @functools.cached_property
    def _columns(self):
        """For each row of the set, the references whose encoding has it."""
        return self._encoded[: len(self._positions)].tocsc()

    def distances(self, rows):
        """The distances of some rows of the set to all references, and what makes two equal."""
        found, equal = _nowhere(len(rows), self._references)
        equal += _EQUAL
        if not len(self._positions):
            return found, equal
        itself = _share(self._by_product(self._items[rows]), self._farthest[rows, None])
        shared = np.stack([self._shared(row) for row in rows])
        jaccard = 1 - np.minimum(shared / (2 - shared), 1.0)
        found[:, self._positions] = (1 - self._weight) * jaccard + self._weight * itself
        return found, equal

    def _shared(self, row):
        """The sum of what the encodings of a row and of each reference have in common."""
        mine = slice(*self._encoded.indptr[row : row + 2])
        columns = self._columns
        of_mine = self._encoded.indices[mine]
        first = columns.indptr[of_mine]
        count = columns.indptr[of_mine + 1] - first
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        at = np.repeat(first, count) + within
        least = np.minimum(np.repeat(self._encoded.data[mine], count), columns.data[at])
        return np.bincount(columns.indices[at], least, minlength=len(self._positions))
