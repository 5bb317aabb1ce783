"""Terms on the embeddings of a batch that are added to a loss.

Each is a pure function `(embeddings, labels, *, mask, axis_name) -> value`, one number over the
global batch: the same on every device, whatever their number.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances
from triplet_jax.devices import collectives

ANCHORS = 1024
"""That `spread` compares with all others at a time."""


def norm(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Keeps embeddings short where their length is free: the mean of `|e|^2`.

    The regulariser of Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss
    Objective".

    Args:
      embeddings: this device's rows.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.
    """
    embeddings = arguments.rows("embeddings", embeddings)
    counts = _counts(len(embeddings), mask)
    squares = jnp.where(counts, jnp.sum(embeddings**2, axis=1), 0.0)
    total, rows = collectives.total((jnp.sum(squares), jnp.sum(counts)), axis_name)
    return total / jnp.maximum(rows, 1)


def spread(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Spreads classes over the sphere, as if their directions were drawn at random.

        M1^2 + max(0, M2 - 1 / dim)

    M1 and M2 are the mean cosine and the mean squared cosine over all pairs of different classes;
    of random directions they are 0 and 1 / dim. Global orthogonal regularisation of Zhang et al.
    2017, "Learning Spread-out Local Feature Descriptors"; there pairs are drawn, here all of the
    global batch count, a part of the anchors at a time: memory is about `ANCHORS * global
    batch`.

    Args:
      embeddings: this device's rows, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; 0 where there is no such pair.
    """
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    embeddings, labels, mask = collectives.whole((embeddings, labels, mask))
    mine = distances.unit(embeddings), labels, _counts(len(embeddings), mask)
    b, of_b, counts_b = collectives.gather(mine, axis_name)

    def of_anchor(anchor):
        row, label, counts = anchor
        differ = (label != of_b) & counts & counts_b
        cosine = jnp.where(differ, distances.product(b, row[:, None])[:, 0], 0.0)
        return jnp.sum(cosine), jnp.sum(cosine**2), jnp.sum(differ, dtype=jnp.float32)

    if len(labels) <= ANCHORS:
        of_anchors = jax.vmap(of_anchor)(mine)
    else:
        # The gradient computes the cosines once more, which else would all be kept for it.
        of_anchors = jax.lax.map(jax.checkpoint(of_anchor), mine, batch_size=ANCHORS)
    sums = jax.tree.map(jnp.sum, of_anchors)
    first, second, pairs = collectives.total(sums, axis_name)
    pairs = jnp.maximum(pairs, 1)
    return (first / pairs) ** 2 + jax.nn.relu(second / pairs - 1.0 / embeddings.shape[1])


def _counts(rows, mask):
    mask = arguments.mask("mask", mask, rows)
    return jnp.ones(rows, bool) if mask is None else mask


REGULARISERS: dict[str, Callable[..., Float[Array, ""]]] = {"norm": norm, "spread": spread}
