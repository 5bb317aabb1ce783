"""The coding rate of a batch's directions, as a regulariser against collapse."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances
from triplet_jax.devices import collectives

PRECISION = 0.5
"""The mean squared error, as a share of a row's squared length, up to which rows are coded."""


def coding_rate(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """How far the coding rate of the directions is below the largest there can be.

        1 - log det(I + dim / (PRECISION n) sum_i u_i u_i^T) / (dim log(1 + 1 / PRECISION))

    u_i are the n rows of the global batch, scaled to length 1. The determinant grows with the
    volume that they fill: the value is 0 where no direction of the space has more of them than
    another, and at its largest where all rows are one point or its opposite. The Anti-Collapse loss
    of Jiang et al. 2024, https://arxiv.org/abs/2407.03106, by the rate of Yu et al. 2020,
    https://arxiv.org/abs/2006.08558; there it is not divided by its maximum.

    Args:
      embeddings: this device's rows, `[batch, dim]`, of any length.
      labels: not used.
      mask: which rows count; None for all.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The value, from 0 to 1; 0 for fewer than two rows.

    Raises:
      InputError: an array has another shape or type than it should.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import regularisers
      >>> print(regularisers.coding_rate(jnp.eye(2), [0, 1]))  # both directions alike
      0.0
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.0]])
      >>> print(f"{regularisers.coding_rate(x, [0, 1]):.3f}")  # 1 - log 5 / log 9
      0.268
    """
    del labels
    embeddings = arguments.rows("embeddings", embeddings)
    counts = arguments.counted("mask", mask, len(embeddings))
    rows, dim = collectives.total(jnp.sum(1.0 * counts), axis_name), embeddings.shape[1]
    unit = distances.unit(jnp.where(counts[:, None], embeddings, 0.0))
    products = collectives.total(distances.product(unit.T, unit), axis_name)
    shares = products * (dim / (PRECISION * jnp.maximum(rows, 1)))
    root = jnp.linalg.cholesky(jnp.eye(dim) + shares)
    rate = 2.0 * jnp.sum(jnp.log(jnp.diagonal(root)))
    return jnp.where(rows > 1, 1.0 - rate / (dim * np.log1p(1.0 / PRECISION)), 0.0)
