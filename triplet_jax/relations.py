"""Which rows are positives of which, where one label for each row can't say it.

The losses take a `Relation` in place of labels: of items with several labels, or of pairs that
people judged. It is a matrix, for batches of up to some thousands of rows.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, errors
from triplet_jax.devices import collectives


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Relation:
    """The positives and the negatives of every anchor, among the candidates of a loss.

    A row is never its own positive or negative, whatever the matrices say of it. A pytree, so that
    it may be passed through `jax.jit`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import losses, relations
      >>> x = jnp.array([[0.0], [1.0], [3.0]])
      >>> near = relations.Relation(abs(x - x.T) < 2)
      >>> loss, stats = losses.triplet_loss(x, near, miner="batch_all", margin=2.0)
      >>> print(f"{stats['num_positive_pairs']:.0f} positive pairs, loss {loss:.0f}")
      2 positive pairs, loss 1
    """

    positive: Shaped[Array | np.ndarray, "batch candidates"]
    """Which candidates are positives of each of this device's rows, as booleans. The candidates are
    the rows of all devices, or the references."""
    negative: Shaped[Array | np.ndarray, "batch candidates"] | None = None
    """Which are negatives; None for all that are not positives. A candidate that is both is a
    positive. What is neither is left out, such as pairs that nobody judged."""


def shared_labels(
    labels: Any,
    among: Any = None,
    *,
    at_least: int = 1,
    axis_name: str | None = None,
) -> Relation:
    """Relates rows that have enough labels in common, where a row may have several labels.

        positive[i, j] = sum_l(labels[i, l] * among[j, l]) >= at_least

    Args:
      labels: which labels each row has, `[batch, labels]` of zeros and ones or booleans.
      among: those of the references of a loss, `[references, labels]`; None for the rows
        themselves.
      at_least: how many labels make a positive.
      axis_name: the name of the device axis inside `pmap` or `shard_map`; the candidates are then
        the rows of all devices.

    Raises:
      InputError: an array has another shape, or other values than 0 and 1, or `at_least` is below
        1.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import relations
      >>> beach_dog_boat = jnp.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
      >>> print(relations.shared_labels(beach_dog_boat).positive.astype(int))
      [[1 1 0]
       [1 1 0]
       [0 0 1]]
    """
    if at_least < 1:
        raise errors.InputError(f"at_least={at_least} must be at least 1.")
    own = _has("labels", labels)
    if among is not None:
        other = _has("among", among)
    else:
        other = collectives.gather(own, axis_name)
    if own.shape[1] != other.shape[1]:
        raise errors.InputError(
            f"labels of shape {own.shape} and among of shape {other.shape} must have one column for"
            " each label."
        )
    common = jnp.matmul(own, other.T, precision=jax.lax.Precision.HIGHEST)
    return Relation(common >= at_least)


def _has(name: str, given: Any) -> Float[Array, "rows labels"]:
    if not isinstance(given, jax.Array):
        given = arguments.as_array(given, name, "shape [rows, labels]")
    if given.ndim != 2:
        raise errors.InputError(
            f"{name} have the shape {given.shape}, and must be a matrix with a row for each"
            " item and a column for each label. For one label an item, pass the labels to the loss."
        )
    if not isinstance(given, jax.core.Tracer) and not np.isin(np.asarray(given), (0, 1)).all():
        raise errors.InputError(f"{name} must have the values 0 and 1 alone.")
    return jnp.asarray(given, jnp.float32)


def pairs(
    positive: Any,
    rows: int,
    *,
    negative: Any = None,
) -> Relation:
    """Relates the rows of given pairs, in both directions.

    Args:
      positive: the two rows of every positive pair, a list or an array `[pairs, 2]` of integers.
      rows: of the batch.
      negative: the pairs of negatives; None for all that are not positives.

    Raises:
      InputError: an array has another shape, a row is not in the batch, or a pair is both.

    Example:
      >>> from triplet_jax import relations
      >>> print(relations.pairs([[0, 2]], rows=3).positive.astype(int))
      [[0 0 1]
       [0 0 0]
       [1 0 0]]
    """
    positives = _matrix("positive", positive, rows)
    if negative is None:
        return Relation(jnp.asarray(positives))
    negatives = _matrix("negative", negative, rows)
    if (both := np.argwhere(positives & negatives)).size:
        raise errors.InputError(
            f"the pair {both[0].tolist()} is both positive and negative: leave it out of one."
        )
    return Relation(jnp.asarray(positives), jnp.asarray(negatives))


def _matrix(name: str, given: Any, rows: int) -> Bool[np.ndarray, "rows rows"]:
    found = arguments.as_array(given, f"{name} pairs", "whole numbers [pairs, 2]")
    if found.size and (found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu"):
        raise errors.InputError(
            f"{name} pairs have the shape {found.shape} and the type {found.dtype}, and must be"
            " whole numbers [pairs, 2]."
        )
    found = found.reshape(-1, 2).astype(np.int64)
    if outside := [int(x) for x in found.ravel() if not 0 <= x < rows]:
        raise errors.InputError(
            f"{name} pairs name the row {outside[0]}, and rows are from 0 to {rows - 1}."
        )
    matrix = np.zeros((rows, rows), bool)
    matrix[found[:, 0], found[:, 1]] = matrix[found[:, 1], found[:, 0]] = True
    return matrix
