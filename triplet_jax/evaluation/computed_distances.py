"""Distances from queries to references that are computed for some queries at a time."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Distances:
    """What `evaluation.retrieval` can rank by in place of embeddings.

    `evaluation.k_reciprocal` and `evaluation.nearest_of_items` make them.

    Args:
      queries: the rows that the distances start from, one for each query.
      references: the rows that they lead to, one for each reference.
      own: for each query the position of the reference that is the query itself; -1 where none is.
      of_rows: takes positions of queries and returns two arrays `[rows, references]` of float64:
        numbers that rise with the distance, and the difference below which two of them are equal.
        The numbers of references that are not finite mean nothing.

    Example:
      Distances of your own, of which the rows only say which of them are finite.

      >>> import numpy as np
      >>> from triplet_jax import evaluation
      >>> given, equal = np.array([[1.0, 3.0, 2.0]]), np.zeros((1, 3))
      >>> found = evaluation.Distances(
      ...     queries=np.zeros((1, 1)), references=np.zeros((3, 1)), own=np.array([-1]),
      ...     of_rows=lambda rows: (given[rows], equal[rows]),
      ... )
      >>> scores = evaluation.retrieval(found, ["a"], reference_labels=["b", "b", "a"], ks=(2,))
      >>> print(scores["precision_at_1"], scores["recall_at_2"])
      0.0 1.0
    """

    queries: Float[np.ndarray, "queries dim"]
    references: Float[np.ndarray, "references dim"]
    own: Int[np.ndarray, "queries"]
    of_rows: Callable[
        [Int[np.ndarray, "rows"]],
        tuple[Float[np.ndarray, "rows references"], Float[np.ndarray, "rows references"]],
    ]
