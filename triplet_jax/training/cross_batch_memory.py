"""Cross-batch memory: past embeddings as further candidates.

Wang et al. 2020, "Cross-Batch Memory for Embedding Learning" (XBM),
https://arxiv.org/abs/1912.06798: encoders change slowly, so that embeddings of some steps ago still
serve as negatives and positives. The memory is a ring of fixed size. Its embeddings are constants
to the gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Memory(NamedTuple):
    """A ring of past embeddings. It is part of a run's state, and the same on every device."""

    # Any, since jax also puts shapes, shardings and None in place of arrays.
    embeddings: Any
    labels: Any
    places: Any
    """The training example of each entry; -1 where nothing was written yet."""
    next: Any
    """The position in the ring that is written next."""


def empty(size: int, dim: int) -> Memory:
    """A memory without entries, for `size` embeddings of `dim` values."""
    return Memory(
        jnp.zeros((size, dim), jnp.float32),
        jnp.zeros(size, jnp.int32),
        jnp.full(size, -1, jnp.int32),
        jnp.int32(0),
    )


def remember(
    memory: Memory,
    embeddings: Float[Array, "batch dim"],
    labels: Int[Array, "batch"],
    places: Int[Array, "batch"],
) -> Memory:
    """Writes a batch over the oldest entries.

    Args:
      memory: of at least the size of the batch.
      embeddings: of the global batch.
      labels: their classes.
      places: the training example of each row; a row of -1 is left out.
    """
    size = memory.labels.shape[0]
    counts = places >= 0
    at = jnp.where(counts, (memory.next + jnp.cumsum(counts) - 1) % size, size)
    return Memory(
        memory.embeddings.at[at].set(jax.lax.stop_gradient(embeddings), mode="drop"),
        memory.labels.at[at].set(labels, mode="drop"),
        memory.places.at[at].set(places, mode="drop"),
        (memory.next + jnp.sum(counts, dtype=jnp.int32)) % size,
    )


def useful(memory: Memory, places: Int[Array, "batch"]) -> Bool[Array, "size"]:
    """Which entries a batch is compared with: those of examples that the batch does not hold.

    An older embedding of an example in the batch would be that example's easiest positive.

    Args:
      memory: with the entries.
      places: the training example of each row of the global batch.
    """
    ordered = jnp.sort(places)
    at = jnp.minimum(jnp.searchsorted(ordered, memory.places), len(ordered) - 1)
    return (memory.places >= 0) & (ordered[at] != memory.places)
