"""The classes that are nearest to a query, by their nearest members or by their means."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from triplet_jax import arguments, errors
from triplet_jax.evaluation import neighbours as neighbour_search

BY = ("neighbours", "means")
# The most distances that are held at a time.
_VALUES = 2**21
# Squared distances below this share of the squared lengths lose digits in a matrix product.
_BLURRED = 1e-6


class NearestClasses(NamedTuple):
    """The classes nearest to each query, nearest first.

    By nearest neighbours as Cover and Hart 1967 (https://doi.org/10.1109/TIT.1967.1053964), or by
    class means as Mensink et al. 2013 (https://doi.org/10.1109/TPAMI.2013.83).

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.nearest_classes([[0.0]], [[1.0], [3.0]], ["near", "far"])
      >>> isinstance(found, evaluation.NearestClasses), found.names.tolist()
      (True, ['far', 'near'])
    """

    distances: Float[np.ndarray, "queries classes"]
    """Infinite where a query has fewer classes to search."""
    positions: Int[np.ndarray, "queries classes"]
    """Of each class among `names`; -1 where there is none."""
    names: Shaped[np.ndarray, "all_classes"]
    """The classes of the references, sorted."""


def nearest_classes(
    queries: arguments.Embeddings,
    references: arguments.Embeddings,
    reference_labels: arguments.Labels,
    *,
    by: str = "neighbours",
    neighbours: int = 1,
    classes: int = 2,
    own: Any = None,
    without: Any = None,
) -> NearestClasses:
    """The classes that are nearest to every query, by the Euclidean distance.

        neighbours   d(q, c) = mean of the distances from q to its k nearest references of c, or to
                     all of them where c has fewer (Cover and Hart 1967,
                     https://doi.org/10.1109/TIT.1967.1053964, for k = 1)
        means        d(q, c) = distance from q to the mean of all references of c (Mensink et al.
                     2013, https://doi.org/10.1109/TPAMI.2013.83)

    Distances are computed in float64 and rounded to float32. Of equally near classes the one whose
    name comes first is the nearest.

    Args:
      queries: rows `[queries, dim]` of any number type, taken as float32.
      references: rows `[references, dim]`.
      reference_labels: the class of each, whole numbers or strings.
      by: "neighbours" or "means".
      neighbours: k; without effect on means.
      classes: how many of the nearest classes are returned.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      without: for each query the name of a class that it does not search, as if nobody knew it; a
        name that no reference has leaves out nothing. None leaves out nothing.

    Returns:
      Distances and classes, `[queries, classes]` each.

    Raises:
      InputError: an array has another shape or type, a row has NaN or infinite values, `by` is not
        known, there are no references, or a number is below 1.

    Example:
      >>> from triplet_jax import evaluation
      >>> references, labels = [[0.0], [4.0], [5.0]], ["a", "b", "b"]
      >>> found = evaluation.nearest_classes([[1.5]], references, labels, neighbours=2)
      >>> print(found.names[found.positions].tolist(), found.distances.tolist())
      [['a', 'b']] [[1.5, 3.0]]
    """
    errors.check_known("by", by, BY)
    for name, value in (("neighbours", neighbours), ("classes", classes)):
        if value < 1:
            raise errors.InputError(f"{name}={value} must be at least 1.")
    q = arguments.finite_rows(queries, name="queries")
    r = arguments.finite_rows(references, name="references")
    neighbour_search.check_width(q, r)
    if not len(r):
        raise errors.InputError("references are empty: at least one class is needed.")
    names, codes = arguments.codes(
        reference_labels, r.shape, name="reference_labels", rows="references"
    )
    own = neighbour_search.own_positions(own, q, r)
    hidden = _hidden(without, q, names)
    # So that whole numbers stay whole, and a large offset costs no digits.
    centre = np.round(r.mean(axis=0, dtype=np.float64))
    q, r = q - centre, r - centre
    if by == "means":
        measure = _ByMeans(r, codes, len(names))
    else:
        measure = _ByNeighbours(r, codes, len(names), neighbours)
    distances = np.full((len(q), classes), np.inf, np.float32)
    positions = np.full((len(q), classes), -1, np.int64)
    tile = max(1, _VALUES // measure.columns)
    for start in range(0, len(q), tile):
        some = slice(start, start + tile)
        of_class = measure(q[some], own[some]).astype(np.float32)
        here = np.flatnonzero(hidden[some] >= 0)
        of_class[here, hidden[some][here]] = np.inf
        order = np.argsort(of_class, axis=1, kind="stable")[:, :classes]
        found = np.take_along_axis(of_class, order, axis=1)
        distances[some, : order.shape[1]] = found
        positions[some, : order.shape[1]] = np.where(np.isfinite(found), order, -1)
    return NearestClasses(distances, positions, names)


def _hidden(without, queries, names):
    """The position of the class that each query leaves out; -1 for none."""
    if without is None:
        return np.full(len(queries), -1)
    given = np.asarray(arguments.labels(without, queries.shape, name="without", rows="queries"))
    first, second = arguments.common_codes(given, names, ("without", "reference_labels"))
    position = {code: at for at, code in enumerate(second.tolist())}
    return np.array([position.get(code, -1) for code in first.tolist()], int)


class _ByMeans:
    """Distances from queries to the means of classes."""

    def __init__(self, references, codes, classes):
        self._references, self._codes = references, codes
        self._count = np.bincount(codes, minlength=classes)
        self._sum = np.zeros((classes, references.shape[1]))
        np.add.at(self._sum, codes, references)
        self.columns = classes

    def __call__(self, queries, own):
        found = _distances(queries, self._sum / self._count[:, None])
        for row in np.flatnonzero(own >= 0):
            code, others = self._codes[own[row]], self._count[self._codes[own[row]]] - 1
            rest = (self._sum[code] - self._references[own[row]]) / max(others, 1)
            found[row, code] = np.linalg.norm(queries[row] - rest) if others else np.inf
        return found


class _ByNeighbours:
    """Mean distances from queries to the nearest members of classes."""

    def __init__(self, references, codes, classes, neighbours):
        order = np.argsort(codes, kind="stable")
        self._references, self._neighbours = references[order], neighbours
        self._place = np.argsort(order)
        count = np.bincount(codes, minlength=classes)
        start = np.cumsum(count) - count
        # Classes of one size are ranked together.
        self._groups = [
            (of_size, start[of_size][:, None] + np.arange(size))
            for size in np.unique(count)
            for of_size in [np.flatnonzero(count == size)]
        ]
        self._classes = classes
        self.columns = len(references)

    def __call__(self, queries, own):
        every = _distances(queries, self._references)
        here = np.flatnonzero(own >= 0)
        every[here, self._place[own[here]]] = np.inf
        found = np.empty((len(queries), self._classes))
        k = self._neighbours
        for of_size, members in self._groups:
            block = every[:, members]
            if members.shape[1] > k:
                block = np.partition(block, k - 1, axis=2)[..., :k]
            there = np.isfinite(block)
            number = there.sum(axis=2)
            total = np.where(there, block, 0.0).sum(axis=2)
            found[:, of_size] = np.where(number > 0, total / np.maximum(number, 1), np.inf)
        return found


def _distances(queries, references):
    """Euclidean distances by a matrix product; small ones as differences, which blurs nothing."""
    lengths = (queries**2).sum(axis=1)[:, None] + (references**2).sum(axis=1)
    squared = lengths - 2 * queries @ references.T
    blurred = squared <= _BLURRED * lengths
    for row in np.flatnonzero(blurred.any(axis=1)):
        near = np.flatnonzero(blurred[row])
        squared[row, near] = ((queries[row] - references[near]) ** 2).sum(axis=1)
    return np.sqrt(np.maximum(squared, 0.0))
