"""Leaves out the rows of a batch whose labels look wrong beside a memory of past embeddings: PRISM.

Liu et al. 2021, "Noise-resistant Deep Metric Learning with Ranking-based Instance Selection",
https://arxiv.org/abs/2103.16047 and https://arxiv.org/abs/2108.01431. A label is likelier to be
right the nearer the embedding is to the centre of its class in the memory, beside the centres of
the other classes. Of each batch the least likely labels are left out, by a threshold that is the
mean over the latest batches. The memory then keeps only what was not left out.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from triplet_jax import distances
from triplet_jax.training.cross_batch_memory import Memory

Chances = Float[Array, "batch"]
"""How likely labels are right, above 0; infinite where that is not known."""


class Thresholds(NamedTuple):
    """The chances at which labels of the latest batches were left out; part of a run's state."""

    latest: Any
    """`[window]`, the newest first; 0 where there was none yet. (Any, since jax also puts shapes,
    shardings and None in place of arrays.)"""


def chances(
    embeddings: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    memory: Memory,
    counts: Bool[Array, "size"],
) -> Chances:
    """How likely each label is right.

        exp(v . w_y) / sum_c exp(v . w_c)

    v is the embedding, and w_c the mean of the memory's embeddings of class c, each brought to
    length 1 before the mean; y is the row's class, and c runs over the classes in the memory.

    Args:
      embeddings: rows of the batch.
      labels: their classes.
      memory: of past embeddings.
      counts: which of its entries are used.

    Returns:
      The chances, infinite where the memory has nothing of the row's class.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax.training import cross_batch_memory, label_filter
      >>> past = cross_batch_memory.empty(2, 2)
      >>> past = cross_batch_memory.remember(past, jnp.eye(2), jnp.arange(2), jnp.arange(2))
      >>> x, labels = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([0, 1])
      >>> right, wrong = label_filter.chances(x, labels, past, past.places >= 0)
      >>> print(f"{right:.3f} {wrong:.3f}")  # shares of e and 1
      0.731 0.269
    """
    centres, classes, has = _centres(memory, counts)
    weights = jnp.where(has, jnp.exp(distances.unit(embeddings) @ centres.T), 0.0)
    at = jnp.minimum(jnp.searchsorted(classes, labels), len(classes) - 1)
    own = jnp.take_along_axis(weights, at[:, None], axis=1)[:, 0]
    known = has[at] & (classes[at] == labels)
    # Where the memory is empty, nothing is divided by 0.
    return jnp.where(known, own / jnp.where(known, jnp.sum(weights, axis=1), 1.0), jnp.inf)


def _centres(
    memory: Memory, counts: Bool[Array, "size"]
) -> tuple[Float[Array, "size dim"], Int[Array, "size"], Bool[Array, "size"]]:
    """The centres of classes, the classes in rising order, and which of these places hold one."""
    last = jnp.iinfo(jnp.int32).max
    labels = jnp.where(counts, memory.labels, last)
    order = jnp.argsort(labels)
    labels, counts = labels[order], counts[order]
    begins = jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    place = jnp.cumsum(begins) - 1
    size = len(labels)
    rows = jnp.where(counts[:, None], distances.unit(memory.embeddings[order]), 0.0)
    number = jax.ops.segment_sum(counts.astype(jnp.float32), place, size)
    centres = jax.ops.segment_sum(rows, place, size) / jnp.maximum(number, 1.0)[:, None]
    return centres, jnp.full(size, last).at[place].set(labels), number > 0


def first_thresholds(window: int) -> Thresholds:
    """The thresholds before the first batch, for a mean over `window` batches."""
    return Thresholds(jnp.zeros(window, jnp.float32))


def kept(
    of_batch: Chances, noise_rate: Float[Array, ""] | float, thresholds: Thresholds
) -> tuple[Bool[Array, "batch"], Thresholds]:
    """Which rows of the global batch are kept, and the latest thresholds after it.

    The threshold of a batch leaves out the share `noise_rate` of its labels, rounded down, of those
    whose chance is known; what is not known is kept. Rows at or below the mean of the latest
    thresholds are left out. If these were all, the mean begins anew with this batch.

    Args:
      of_batch: the chances of the global batch.
      noise_rate: the share of labels that are wrong, in [0, 1). With 0 every row is kept.
      thresholds: those of the latest batches.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax.training import label_filter
      >>> none = label_filter.first_thresholds(window=3)
      >>> rows, after = label_filter.kept(jnp.array([0.25, 0.5, 0.75, 0.5]), 0.25, none)
      >>> print(rows, after.latest)
      [False  True  True  True] [0.25 0.   0.  ]
    """
    known = jnp.isfinite(of_batch)
    # 0.3 of 10 rows are 3, whatever the rounding of float32.
    out = jnp.floor(noise_rate * jnp.sum(known) + 1e-3).astype(jnp.int32)
    own = jnp.sort(of_batch)[jnp.maximum(out - 1, 0)]
    moved = jnp.concatenate([own[None], thresholds.latest[:-1]])
    by_mean = ~known | (of_batch > jnp.sum(moved) / jnp.sum(moved > 0))
    anew = ~jnp.any(by_mean & known)
    moved = jnp.where(anew, jnp.zeros_like(moved).at[0].set(own), moved)
    rows = jnp.where(anew, ~known | (of_batch > own), by_mean)
    filters = out > 0
    return ~filters | rows, Thresholds(jnp.where(filters, moved, thresholds.latest))
