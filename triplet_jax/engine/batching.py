"""What holds for all of the runs that `vmap` batches together."""

import jax
import jax.numpy as jnp


@jax.custom_batching.custom_vmap
def largest_of_batch(x):
    """`x`, or its maximum over everything that is batched together.

    Where whole runs are batched by `vmap`, a branch that differs among them would have to be
    taken on all sides. What suffices for one with most suffices for all.
    """
    return x


@largest_of_batch.def_vmap
def _over_batch(axis_size, in_batched, x):
    del axis_size
    return (largest_of_batch(jnp.max(x, axis=0)) if in_batched[0] else x), False
