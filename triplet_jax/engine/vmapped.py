"""What all runs that `jax.vmap` trains in one program have to agree on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


@jax.custom_batching.custom_vmap
def largest_over_vmap(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """`x`, or under `jax.vmap` the maximum of `x` over all runs.

    If a condition differs between runs, both of its branches are computed for every run. With the
    largest `x`, all runs take the branch that suffices for each of them.
    """
    return x


@largest_over_vmap.def_vmap
def _of_all_runs(
    axis_size: int, in_batched: list[bool], x: Shaped[Array, "..."]
) -> tuple[Shaped[Array, "..."], bool]:
    del axis_size
    return (largest_over_vmap(jnp.max(x, axis=0)) if in_batched[0] else x), False
