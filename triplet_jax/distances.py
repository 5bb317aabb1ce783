"""Distances between two sets of vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax import errors


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Square root whose gradient at 0 is 0.

    `sqrt` alone has an infinite slope at 0, which turns into NaN where it meets a zero
    gradient; a `where` around it does not help, because the gradient of the branch that
    was not taken is still computed. So the argument is replaced as well.
    """
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def squared_euclidean(
    a: Float[Array, "anchors dim"], b: Float[Array, "candidates dim"]
) -> Float[Array, "anchors candidates"]:
    """`|a|^2 + |b|^2 - 2 a.b`, clipped at 0 from below.

    One matrix product, at full float32 precision on every accelerator: the reduced
    precision that is the default on some of them reorders near neighbours. The gradient
    of a clipped entry is 0. Rounding leaves an error of about `1e-7 |a|^2`.
    """
    product = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    squares = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None, :]
    return jax.nn.relu(squares - 2.0 * product)


def euclidean(
    a: Float[Array, "anchors dim"], b: Float[Array, "candidates dim"]
) -> Float[Array, "anchors candidates"]:
    """`|a - b|`, the default of the field. The gradient between equal vectors is 0, not NaN."""
    return safe_sqrt(squared_euclidean(a, b))


def cosine(
    a: Float[Array, "anchors dim"], b: Float[Array, "candidates dim"]
) -> Float[Array, "anchors candidates"]:
    """`1 - a.b / (|a| |b|)`, in [0, 2]. A zero vector is at distance 1 from everything."""
    return 1.0 - jnp.matmul(unit(a), unit(b).T, precision=jax.lax.Precision.HIGHEST)


def unit(x: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Rows of length 1; a zero row stays zero, with a finite gradient."""
    norm = safe_sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1.0)


METRICS: dict[str, Callable] = {
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "cosine": cosine,
}


def pairwise(
    a: Float[Array, "anchors dim"],
    b: Float[Array, "candidates dim"],
    metric: str = "euclidean",
    **params,
) -> Float[Array, "anchors candidates"]:
    """The distance from every row of `a` to every row of `b`.

    Args:
      a: the anchors.
      b: the candidates.
      metric: a name in `METRICS`.
      **params: parameters of the metric.

    Returns:
      The distances, in the units of the metric.

    Raises:
      InputError: the metric is not known.
    """
    errors.check_known("metric", metric, METRICS)
    return METRICS[metric](a, b, **params)
