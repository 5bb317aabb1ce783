"""Suspects: examples whose labels look wrong, by their neighbours and by what mining picks.

An example with a wrong label lies far from its class and near another. So it is often the farthest
positive or the nearest negative of other examples.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, Int

from triplet_jax import arguments, distances, errors, evaluation
from triplet_jax.data import sampling


def disagreement(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    neighbours: int = 10,
) -> Float[np.ndarray, "examples"]:
    """The share of each example's nearest neighbours that have another label.

    >>> disagreement([[0.0], [1.0], [2.0], [9.0]], [0, 0, 1, 1], neighbours=1)
    array([0., 0., 1., 0.])

    Args:
      embeddings: the examples, `[examples, dim]`.
      labels: their classes, `[examples]`.
      neighbours: how many neighbours of each example count.

    Raises:
      InputError: there are fewer than `neighbours` other examples.
    """
    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    return np.mean(_votes(embeddings, labels, neighbours) != labels[:, None], axis=1)


def _votes(
    embeddings: Float[np.ndarray, "examples dim"], labels: np.ndarray, neighbours: int
) -> np.ndarray:
    """The labels of each example's nearest neighbours, nearest first."""
    _, position = evaluation.nearest(embeddings, None, neighbours=neighbours)
    return labels[position]


def misplacement(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    neighbours: int = 10,
    tile: int = 256,
) -> Float[np.ndarray, "examples"]:
    """How far an example lies from its own class, compared with other classes; above 1 outside.

    It is the mean distance to the nearest examples of its label, over the mean distance to the
    nearest examples of other labels.

    >>> misplacement([[0.0], [1.0], [3.0], [9.0]], [0, 0, 1, 1], neighbours=1)
    array([0.33333333, 0.5       , 3.        , 0.75      ])

    Args:
      embeddings: the examples, `[examples, dim]`.
      labels: their classes, `[examples]`.
      neighbours: how many examples of either kind count; fewer if there are fewer.
      tile: how many examples are compared with all at a time.

    Returns:
      The ratio for each example; infinite for an example alone in its class, 0 if there is only one
      class, and 1 if both means are 0, as for copies with different labels.
    """
    x = arguments.finite_rows(embeddings).astype(np.float64)
    labels = np.asarray(arguments.labels(labels, x.shape))
    lengths, found = np.sum(x**2, axis=1), np.empty(len(x))
    for start in range(0, len(x), tile):
        rows = np.arange(start, min(start + tile, len(x)))
        squared = lengths[rows, None] + lengths - 2 * x[rows] @ x.T
        distance = np.sqrt(np.maximum(squared, 0.0))
        same = labels[rows, None] == labels
        distance[np.arange(len(rows)), rows] = np.inf  # nobody is its own neighbour
        own = _mean_of_nearest(np.where(same, distance, np.inf), neighbours)
        other = _mean_of_nearest(np.where(same, np.inf, distance), neighbours)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[rows] = np.where(own == other, 1.0, own / other)
    return found


def _mean_of_nearest(
    distance: Float[np.ndarray, "rows examples"], neighbours: int
) -> Float[np.ndarray, "rows"]:
    """The mean of each row's smallest finite distances; infinite if it has none."""
    neighbours = min(neighbours, distance.shape[1])
    nearest = np.partition(distance, neighbours - 1, axis=1)[:, :neighbours]
    known = np.isfinite(nearest)
    count = known.sum(axis=1)
    total = np.where(known, nearest, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def picked_as_hardest(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    classes: int = 8,
    per_class: int = 8,
    batches: int = 500,
    seed: int = 0,
) -> Float[np.ndarray, "examples"]:
    """How often batch-hard mining picks an example, on average over the batches that hold it.

    Batches of P classes and K examples each are drawn as in training, and mined by these
    embeddings. Every anchor picks its farthest positive and its nearest negative, so that the mean
    over the examples of a batch is 2.

    Args:
      embeddings: the examples, `[examples, dim]`.
      labels: the labels that training saw.
      classes: P; fewer if fewer classes have K examples.
      per_class: K, at least 2.
      batches: how many batches are drawn.
      seed: decides the draws.

    Returns:
      The mean count for each example; 0 for one that was never drawn.

    Raises:
      InputError: `per_class` is below 2, or fewer than two classes have that many examples.
    """
    embeddings = arguments.finite_rows(embeddings)
    _, code = arguments.codes(labels, embeddings.shape)
    count = np.bincount(code)
    large = int(np.sum(count >= per_class))
    if large < 2 or per_class < 2:
        raise errors.InputError(
            f"per_class={per_class} must be at least 2, and at least two classes must have so many"
            f" examples; {large} have."
        )
    kept = np.flatnonzero(count[code] >= per_class)
    index = sampling.class_index(code[kept])
    of_batch = {"classes": min(classes, large), "per_class": per_class}
    drawn = kept[
        np.stack([sampling.pk_batch(np, index, seed, i, **of_batch) for i in range(batches)])
    ]
    counts = np.asarray(_picks_of_batches(jnp.asarray(embeddings), jnp.asarray(drawn), per_class))
    total = np.bincount(drawn.reshape(-1), counts.reshape(-1), minlength=len(code))
    times = np.bincount(drawn.reshape(-1), minlength=len(code))
    return total / np.maximum(times, 1)


@jax.jit(static_argnames="per_class")
def _picks_of_batches(
    embeddings: Float[Array, "examples dim"], drawn: Int[Array, "batches batch"], per_class: int
) -> Float[Array, "batches batch"]:
    """How many anchors pick each row of each batch."""

    def of_batch(positions: Int[Array, "batch"]) -> Float[Array, "batch"]:
        n = len(positions)
        x = embeddings[positions]
        d = distances.pairwise(x, x)
        of_class = jnp.arange(n) // per_class
        same = of_class[:, None] == of_class
        itself = jnp.eye(n, dtype=bool)
        farthest = jnp.argmax(jnp.where(same & ~itself, d, -jnp.inf), axis=1)
        nearest = jnp.argmin(jnp.where(same, jnp.inf, d), axis=1)
        return jnp.zeros(n).at[farthest].add(1.0).at[nearest].add(1.0)

    return jax.lax.map(of_batch, drawn)


def rank(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    neighbours: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Ranks all examples, the most suspect first.

    Args:
      embeddings: the examples that a run was trained on, `[examples, dim]`.
      labels: the labels that training saw.
      neighbours: how many neighbours of each example count.
      seed: decides the batches of `picked_as_hardest`.

    Returns:
      A row for each example, with its position as the index, and the columns

      * `label`: the label that training saw.
      * `instead`: the label that most of its neighbours have.
      * `suspicion`: its `misplacement`, by which the rows are sorted.
      * `disagreement`, `picked`: by `disagreement` and `picked_as_hardest`, for comparison. The
        batches have eight examples of a class, or as many as the median class has, but two at
        least.

    Raises:
      InputError: a row has NaN or infinite values, there are too few examples for `neighbours`, or
        fewer than two classes have enough examples for a batch.
    """
    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    votes = _votes(embeddings, labels, neighbours)
    _, counts = np.unique(labels, return_counts=True)
    per_class = int(np.clip(np.median(counts), 2, 8))
    picked = picked_as_hardest(embeddings, labels, per_class=per_class, seed=seed)
    table = pd.DataFrame(
        {
            "label": labels,
            "instead": _most_common(votes),
            "suspicion": misplacement(embeddings, labels, neighbours=neighbours),
            "disagreement": np.mean(votes != labels[:, None], axis=1),
            "picked": picked,
        },
        index=pd.RangeIndex(len(labels), name="example"),
    )
    return table.sort_values("suspicion", ascending=False, kind="stable")


def average_precision(table: pd.DataFrame, wrong: np.ndarray, *, by: str = "suspicion") -> float:
    """The average precision with which a column of `rank` finds planted errors; 1 is best.

    Args:
      table: from `rank`.
      wrong: whether the label of each example is wrong.
      by: the column.
    """
    import sklearn.metrics

    score = finite_order(table[by].to_numpy())
    return float(sklearn.metrics.average_precision_score(wrong[table.index], score))


def finite_order(values: Float[np.ndarray, "examples"]) -> Int[np.ndarray, "examples"]:
    """Whole numbers in the order of some values, which may be infinite, as scikit-learn takes them.

    >>> finite_order(np.array([0.5, np.inf, 0.5, 2.0]))
    array([0, 2, 0, 1])
    """
    return np.unique(values, return_inverse=True)[1]


def _most_common(votes: np.ndarray) -> np.ndarray:
    """The most common label of each row; among equals, that of the nearest neighbour."""
    same = votes[:, :, None] == votes[:, None, :]
    return votes[np.arange(len(votes)), same.sum(axis=2).argmax(axis=1)]
