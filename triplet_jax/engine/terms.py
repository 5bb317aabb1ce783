"""What one anchor adds to the terms of a contrastive loss, and what such terms are made of."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from triplet_jax.mining import IsNegative, IsPositive, Number

PAIRS = 2**20
"""The most pairs of a positive and a candidate that are worked on at a time, of one anchor."""

_HUGE = 1e30


class Terms(NamedTuple):
    """What one anchor adds to each term of a loss."""

    value: Float[Array, "terms"]
    weight: Float[Array, "terms"]
    """Its share of the denominator, which has no gradient."""


def of_all_pairs(loss: Callable[..., Terms]) -> Callable[..., Terms]:
    """Marks a loss that works out numbers `[positives, candidates]`, and not a few for each.

    Fewer anchors are then taken at a time, so that memory is that of a miner of all pairs.
    """
    loss.is_of_all_pairs = True
    return loss


def is_of_all_pairs(loss: Callable[..., Terms]) -> bool:
    """Whether a loss, or the function of which it is a partial, is marked as `of_all_pairs`."""
    return getattr(getattr(loss, "func", loss), "is_of_all_pairs", False)


def of_each_positive(
    function: Callable, positives: PyTree, candidates: int
) -> Float[Array, "positives"]:
    """Applies a function to each positive and all candidates, some of the pairs at a time.

    Args:
      function: takes what one positive has in `positives`, and returns a number.
      positives: arrays `[positives]`.
      candidates: how many there are.
    """
    return in_parts(function, positives, max(1, PAIRS // candidates))


def in_parts(function: Callable, rows: PyTree, at_a_time: int) -> PyTree:
    """Applies a function to each row, some of the rows at a time.

    Args:
      function: takes what one row has in `rows`.
      rows: arrays `[rows, ...]`.
      at_a_time: the most rows at a time.
    """
    if len(jax.tree.leaves(rows)[0]) <= at_a_time:
        return jax.vmap(function)(rows)
    # The gradient works them out again, so that not all of it is kept in memory.
    return jax.lax.map(jax.checkpoint(function), rows, batch_size=at_a_time)


def one(value: Float[Array, ""], weight: Shaped[Array, ""]) -> Terms:
    """A loss of one term."""
    return Terms(value[None], jnp.float32(weight)[None])


def each_against_all(
    s_ap: Float[Array, "positives"],
    is_positive: IsPositive,
    s_an: Float[Array, "negatives"],
    is_negative: IsNegative,
) -> Terms:
    """A softmax of each positive and all negatives; the mean over positives."""
    negatives = log_sum_exp(s_an, is_negative)
    value = jnp.where(is_positive, jax.nn.softplus(negatives - s_ap), 0.0)
    return one(jnp.sum(value), jnp.sum(is_positive))


def of_both(
    x: Float[Array, ""], is_positive: IsPositive, is_negative: IsNegative, finish: Callable
) -> Terms:
    """`finish(x)` of an anchor with positives and negatives; the mean over such anchors."""
    both = jnp.any(is_positive) & jnp.any(is_negative)
    return one(jnp.where(both, finish(jnp.where(both, x, 0.0)), 0.0), both)


def log_sum_exp(
    x: Float[Array, "candidates"], where: Bool[Array, "candidates"]
) -> Float[Array, ""]:
    """`log(sum(exp(x)))` of what `where` shows, stable; of nothing -1e30, without a gradient."""
    most = jax.lax.stop_gradient(jnp.max(jnp.where(where, x, -_HUGE)))
    most = jnp.where(jnp.any(where), most, 0.0)
    # Never above 0, even where the compiler computed x twice and rounded the two differently.
    below = x - jax.lax.stop_gradient(jnp.maximum(x, most))
    total = jnp.sum(jnp.where(where, jnp.exp(jnp.where(where, below, 0.0)), 0.0))
    found = total > 0
    return jnp.where(found, jnp.log(jnp.where(found, total, 1.0)) + most, -_HUGE)


def log_one_more(
    x: Float[Array, "candidates"], where: Bool[Array, "candidates"]
) -> Float[Array, ""]:
    """`log(1 + sum(exp(x)))` of what `where` shows; of nothing 0."""
    return jax.nn.softplus(log_sum_exp(x, where))


def turned(cosine: Float[Array, "..."], angle: Number) -> Float[Array, "..."]:
    """`cos(theta + angle)` of angles whose cosines are given; flat where the sine is almost 0."""
    inside = jnp.clip(cosine, -1.0 + 1e-6, 1.0 - 1e-6)  # where the slope of the sine is finite
    return inside * jnp.cos(angle) - jnp.sqrt(1.0 - inside * inside) * jnp.sin(angle)
