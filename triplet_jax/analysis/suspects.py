"""Labels that look wrong: what the neighbours say, and what mining keeps picking.

A wrong label makes its example the farthest positive and the nearest negative of others,
again and again; it lies far from its class and near another one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float

from triplet_jax import arguments, distances, errors, evaluation
from triplet_jax.data import sampling


def disagreement(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    neighbours: int = 10,
) -> Float[np.ndarray, "examples"]:
    """The share of each example's nearest others that have another label.

    Raises:
      InputError: there are not that many others.
    """
    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    return np.mean(_votes(embeddings, labels, neighbours) != labels[:, None], axis=1)


def _votes(embeddings, labels, neighbours):
    """The labels of each example's nearest others, nearest first."""
    _, position = evaluation.nearest(embeddings, None, neighbours=neighbours)
    return labels[position]


def misplacement(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    neighbours: int = 10,
    tile: int = 256,
) -> Float[np.ndarray, "examples"]:
    """How much nearer other classes are: above 1 an example lies outside of its own.

    The mean distance to the nearest examples of its label over that to the nearest of other
    labels, `neighbours` of each, or as many as there are. Infinite for an example alone in its
    class, 0 where there is only one class.
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
            found[rows] = own / other
    return found


def _mean_of_nearest(distance, neighbours):
    """Over the finite ones; infinite where there are none."""
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
    """How often batch-hard picks an example, in each batch that it is drawn into.

    Batches of P classes and K examples each are drawn as in training, and mined with these
    embeddings. Every anchor picks its farthest positive and its nearest negative, so that the
    mean over examples is 2. 0 for one that was never drawn.

    Args:
      embeddings: the examples.
      labels: as training was given them.
      classes: P, at most as many as have K examples.
      per_class: K, at least 2.
      batches: how many.
      seed: of the draws.

    Raises:
      InputError: there are not two classes with `per_class` examples, or `per_class` is below 2.
    """
    embeddings = arguments.finite_rows(embeddings)
    _, code = arguments.codes(labels, embeddings.shape)
    count = np.bincount(code)
    large = int(np.sum(count >= per_class))
    if large < 2 or per_class < 2:
        raise errors.InputError(
            f"per_class={per_class} must be at least 2, and two classes must have as many"
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
def _picks_of_batches(embeddings, drawn, per_class):
    """Of each place of each batch, how many anchors pick it."""

    def of_batch(positions):
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
    """All examples, the most suspect first.

    Args:
      embeddings: the examples that a run was trained on.
      labels: as it was given them.
      neighbours: that are asked.
      seed: of the batches.

    Returns:
      A row for each example, with its position as index: `label`; `instead`, the label that most
      of its neighbours have; `suspicion`, its `misplacement`, by which rows are sorted; and for
      comparison `disagreement` and `picked`, as the functions say. Batches for `picked` have eight
      examples a class, or as many as the median class has.

    Raises:
      InputError: see the functions.
    """
    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    votes = _votes(embeddings, labels, neighbours)
    _, counts = np.unique(labels, return_counts=True)
    per_class = int(min(8, np.median(counts)))
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
    """How well a column of `rank` finds planted errors: 1 if all of them come first.

    Args:
      table: from `rank`.
      wrong: of every example, whether its label is wrong.
      by: the column.
    """
    import sklearn.metrics

    return float(sklearn.metrics.average_precision_score(wrong[table.index], table[by]))


def _most_common(votes):
    """Of each row; of equally common ones the nearest neighbour's comes first."""
    same = votes[:, :, None] == votes[:, None, :]
    return votes[np.arange(len(votes)), same.sum(axis=2).argmax(axis=1)]
