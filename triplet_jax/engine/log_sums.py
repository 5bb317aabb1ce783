"""Logarithms of sums of exponentials, over the part of a row that a mask shows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_HUGE = 1e30


def over(x: Float[Array, "candidates"], where: Bool[Array, "candidates"]) -> Float[Array, ""]:
    """`log(sum(exp(x)))` of what `where` shows, stable; of nothing -1e30, without a gradient."""
    most = jax.lax.stop_gradient(jnp.max(jnp.where(where, x, -_HUGE)))
    most = jnp.where(jnp.any(where), most, 0.0)
    # Never above 0, even where the compiler computed x twice and rounded the two differently.
    below = x - jax.lax.stop_gradient(jnp.maximum(x, most))
    total = jnp.sum(jnp.where(where, jnp.exp(jnp.where(where, below, 0.0)), 0.0))
    found = total > 0
    return jnp.where(found, jnp.log(jnp.where(found, total, 1.0)) + most, -_HUGE)


def with_one(x: Float[Array, "candidates"], where: Bool[Array, "candidates"]) -> Float[Array, ""]:
    """`log(1 + sum(exp(x)))` of what `where` shows; of nothing 0."""
    return jax.nn.softplus(over(x, where))
