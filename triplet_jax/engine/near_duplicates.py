"""Distances from a matrix product, of which the smallest are measured again as differences."""

import jax
import jax.numpy as jnp

from triplet_jax.engine import batching
from triplet_jax.mining import written_once


def measured(metric, anchors, candidates, columns, itself):
    """Distances not yet finished, in the rows of the smallest of them measured as differences.

    `itself` says where in its row an anchor stands itself.
    """
    fast = metric.pairwise(anchors, columns)
    if metric.blur is None:
        return fast
    exact = _exact_where_near(
        metric, *jax.lax.stop_gradient((anchors, candidates, columns, fast)), itself
    )
    return _with_slope_of(exact, fast)


def finished(metric, measured):
    """What a miner is shown of them."""
    return written_once(metric.finish(measured))


@jax.custom_jvp
def _with_slope_of(value, other):
    """`value`, which changes as `other` does."""
    del other
    return value


@_with_slope_of.defjvp
def _slope_of_other(primals, tangents):
    # Not the bare value, which for the next derivative would be a constant.
    return _with_slope_of(*primals), tangents[1]


def _exact_where_near(metric, anchors, candidates, columns, fast, itself):
    # An anchor is always near itself, which does not matter: it is nobody's pick.
    is_itself = jnp.arange(columns.shape[1]) == itself[:, None]
    nearest = jnp.min(jnp.where(is_itself, jnp.inf, fast), axis=1)
    near = nearest < metric.blur(anchors, columns)
    at_a_time = min(16 if jax.default_backend() == "cpu" else 256, len(near))

    def more(state):
        _, near = state
        return batching.largest_of_batch(jnp.any(near))

    def measure_some(state):
        distances, near = state
        rows = jnp.nonzero(near, size=at_a_time, fill_value=len(near))[0]
        exact = metric.between(anchors.at[rows].get(mode="clip")[:, None], candidates)
        return distances.at[rows].set(exact, mode="drop"), near.at[rows].set(False, mode="drop")

    # In place, and nothing to be done as a rule.
    return jax.lax.while_loop(more, measure_some, (fast, near))[0]
