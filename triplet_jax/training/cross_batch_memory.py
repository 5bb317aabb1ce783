"""Cross-batch memory: past embeddings as further candidates.

Wang et al. 2020, "Cross-Batch Memory for Embedding Learning" (XBM): encoders change slowly, so
that embeddings of some steps ago still serve as negatives and positives. The memory is a ring of
fixed size; what it holds has no gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Memory(NamedTuple):
    """A ring of embeddings. The same on every device; the state of a run holds it."""

    # Any, since jax fills trees with what is no array.
    embeddings: Any
    labels: Any
    places: Any
    """Which training example each is of; -1 where there is none yet."""
    next: Any
    """Where the next one goes."""


def empty(size: int, dim: int) -> Memory:
    """A memory of nothing."""
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
    """The memory with a batch in place of its oldest entries.

    Args:
      memory: with room for a batch at least.
      embeddings: of the global batch.
      labels: their classes.
      places: which training examples they are of; -1 for rows that do not count and are not kept.
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
    """Which entries a batch may be compared with: those of other examples.

    An older embedding of an example in the batch would be its own easiest positive; it is told by
    its place, wherever in the ring it stands.
    """
    ordered = jnp.sort(places)
    at = jnp.minimum(jnp.searchsorted(ordered, memory.places), len(ordered) - 1)
    return (memory.places >= 0) & (ordered[at] != memory.places)
