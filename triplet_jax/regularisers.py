"""Regularisers: terms that depend on the embeddings of a batch and are added to a loss.

Each is a pure function `(embeddings, labels, *, mask, axis_name) -> value`. The value is one number
over the global batch, the same on every device and for every number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances
from triplet_jax.devices import collectives

ANCHORS = 1024
"""The most rows that `spread` compares with all others at a time."""


def norm(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """The mean of `|e|^2`: keeps embeddings short where their length is free.

    A batch without rows that count has the value 0. The regulariser of Sohn 2016, "Improved Deep
    Metric Learning with Multi-class N-pair Loss Objective",
    https://papers.nips.cc/paper/2016/hash/6b180037abbebea991d8b1232f8a8ca9-Abstract.html.

    Args:
      embeddings: this device's rows, `[batch, dim]`.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value, in squared units of the embeddings.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> print(regularisers.norm(jnp.array([[3.0, 4.0], [1.0, 0.0]]), [0, 1]))  # (25 + 1) / 2
      13.0
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

    M1 is the mean cosine over all pairs of different classes, and M2 the mean squared cosine. Of
    random directions they are 0 and 1 / dim. Global orthogonal regularisation of Zhang, Yu, Kumar
    and Chang 2017, "Learning Spread-out Local Feature Descriptors",
    https://arxiv.org/abs/1708.06320. There pairs are drawn; here all pairs of the global batch
    count. At most `ANCHORS` rows of a device are compared at a time, so memory is about `ANCHORS *
    global batch` numbers.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: their classes.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value; 0 where no two rows that count are of different classes.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      The only cosine between the two classes is 1, so the value is 1^2 + (1 - 1/2).

      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> print(regularisers.spread(jnp.array([[1.0, 0.0], [2.0, 0.0]]), [0, 1]))
      1.5
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
        # The gradient computes the cosines again, so that they are not all kept in memory.
        of_anchors = jax.lax.map(jax.checkpoint(of_anchor), mine, batch_size=ANCHORS)
    sums = jax.tree.map(jnp.sum, of_anchors)
    first, second, pairs = collectives.total(sums, axis_name)
    pairs = jnp.maximum(pairs, 1)
    return (first / pairs) ** 2 + jax.nn.relu(second / pairs - 1.0 / embeddings.shape[1])


def _counts(rows, mask):
    mask = arguments.mask("mask", mask, rows)
    return jnp.ones(rows, bool) if mask is None else mask


REGULARISERS: dict[str, Callable[..., Float[Array, ""]]] = {"norm": norm, "spread": spread}
