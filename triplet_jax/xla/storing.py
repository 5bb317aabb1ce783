"""Values that XLA stores on a CPU, where it would compute them again for each of their readers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def stored(function: Callable, *arrays: jax.Array) -> PyTree:
    """`function(*arrays)`, computed once.

    On a CPU XLA compiles cheap operations into each operation that reads them, and takes
    `jax.lax.optimization_barrier` away before that. It compiles nothing into or out of a branch, so
    the function is a branch here that is always taken.

    Args:
      function: what is computed. What it reads besides `arrays` is not differentiated.
      *arrays: its arguments, of which the first is of floats and not empty.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.optimization_barrier(function(*arrays))
    first = arrays[0][(0,) * arrays[0].ndim]
    always = (first < 1) | (first >= 1) | jnp.isnan(first)

    def never(*arrays):
        shapes = jax.eval_shape(function, *arrays)
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    return jax.lax.cond(always, function, never, *arrays)


def behind_a_barrier(x: PyTree) -> PyTree:
    """`x`, on a CPU behind a barrier across which XLA simplifies nothing.

    That makes mining up to a fifth faster. It does not keep each reader from computing `x` again,
    as `stored` does. On other devices the compiler decides.
    """
    return jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x
