"""All pairs of rows that are near each other, such as copies of one image, and their groups."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import arguments, errors

# The rows on either side of a tile.
_TILE = 2048
# The most values of pairs that are measured at a time.
_MEASURED = 2**22


class ClosePairs(NamedTuple):
    """Pairs of rows, the nearest first.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.pairs_within([[0.0], [5.0], [5.5]], within=1.0)
      >>> isinstance(found, evaluation.ClosePairs), found.distances.tolist()
      (True, [0.5])
    """

    pairs: Int[np.ndarray, "chosen 2"]
    """The positions of both rows, the smaller one first."""
    distances: Float[np.ndarray, "chosen"]

    def groups(self, rows: int) -> Int[np.ndarray, "rows"]:
        """The group of each row, where the rows of a pair are in one group.

        These are the connected components of the pairs: two rows of a group may be farther from
        each other than a pair may be.

        Args:
          rows: how many there are.

        Returns:
          For each row the number of its group; -1 for a row that is in no pair. Groups are numbered
          in the order of their nearest pairs.

        Example:
          >>> from triplet_jax import evaluation
          >>> found = evaluation.pairs_within([[0.0], [1.0], [9.0], [1.5], [9.1]], within=1.0)
          >>> found.groups(5).tolist()
          [1, 1, 0, 1, 0]
        """
        import scipy.sparse.csgraph

        first, second = self.pairs.T
        links = scipy.sparse.coo_array((np.ones(len(first)), (first, second)), (rows, rows))
        _, component = scipy.sparse.csgraph.connected_components(links, directed=False)
        _, at = np.unique(component[first], return_index=True)
        number = np.full(rows, -1)
        number[component[first[np.sort(at)]]] = np.arange(len(at))
        return number[component]


def pairs_within(
    embeddings: arguments.Embeddings, *, within: float, most: int = 1_000_000
) -> ClosePairs:
    """All pairs of rows whose Euclidean distance is at most `within`.

    The search is exact, in tiles: a matrix product in float32 leaves out what is certainly farther,
    and the rest is measured as differences in float64. Memory grows with the rows and with the
    pairs that are found, time with the square of the rows.

    Args:
      embeddings: rows `[rows, dim]` of any number type, taken as float32.
      within: the largest distance of a pair, which counts.
      most: the most pairs.

    Raises:
      InputError: an array has another shape or type, a row has NaN or infinite values, `within` is
        negative or no number, or there are more pairs than `most`.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.pairs_within([[0.0], [5.0], [5.5], [1.0]], within=1.0)
      >>> print(found.pairs.tolist(), found.distances.tolist())
      [[1, 2], [0, 3]] [0.5, 1.0]
    """
    if not 0 <= within < math.inf:
        raise errors.InputError(f"within={within} must be a distance, at least 0.")
    rows = arguments.finite_rows(embeddings)
    kept, number = [], 0
    for pairs, distances in _near(rows, within) if len(rows) else ():
        kept.append((pairs, distances))
        number += len(pairs)
        if number > most:
            raise errors.InputError(
                f"within={within} holds for more than {most:,} pairs of {len(rows):,} rows. Give a"
                " smaller distance."
            )
    if not kept:
        return ClosePairs(np.zeros((0, 2), int), np.zeros(0))
    pairs, distances = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.lexsort((pairs[:, 1], pairs[:, 0], distances))
    return ClosePairs(pairs[order], distances[order])


def _near(rows, within):
    """Yields the pairs of every two tiles, with their distances."""
    x = rows - rows.mean(axis=0, dtype=np.float64)
    # Squares of larger values overflow float32.
    if np.abs(x).max(initial=0) < 1e15 and within < 1e15:
        x = x.astype(np.float32)
    lengths = np.einsum("nd,nd->n", x, x)
    # Twice the most that rounding adds, of the values and of the sums.
    unsure = (x.shape[1] + 8) * np.finfo(np.float32).eps
    for i in range(0, len(x), _TILE):
        for j in range(i, len(x), _TILE):
            ends = slice(i, i + _TILE), slice(j, j + _TILE)
            both = lengths[ends[0], None] + lengths[ends[1]]
            squared = both - 2 * (x[ends[0]] @ x[ends[1]].T)
            first, second = np.nonzero(squared <= within**2 + unsure * both)
            pairs = np.stack([first + i, second + j], axis=1)
            yield from _measured(rows, pairs[pairs[:, 0] < pairs[:, 1]], within)


def _measured(rows, pairs, within):
    """Yields the pairs that are near, among those that may be, in parts."""
    at_once = max(1, _MEASURED // max(1, rows.shape[1]))
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        apart = rows[some[:, 0]].astype(np.float64) - rows[some[:, 1]]
        distances = np.sqrt(np.einsum("pd,pd->p", apart, apart))
        near = distances <= within
        yield some[near], distances[near]
