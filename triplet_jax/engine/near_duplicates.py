"""Distances by a matrix product, of which the smallest are measured again as differences."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from triplet_jax.distances import Metric
from triplet_jax.engine import vmapped
from triplet_jax.xla import storing


def measured(
    metric: Metric,
    anchors: Float[Array, "anchors dim"],
    candidates: Float[Array, "candidates dim"],
    columns: Float[Array, "dim candidates"],
    itself: Int[Array, "anchors"],
) -> Float[Array, "anchors candidates"]:
    """Distances before `metric.finish`, by `metric.pairwise`.

    Where a row holds a distance so small that the product blurs it, the row is measured again by
    `metric.between`. The gradient is always that of the product.

    Args:
      metric: how to measure.
      anchors: rows that the metric has prepared.
      candidates: rows that the metric has prepared.
      columns: the candidates as columns.
      itself: each anchor's place among the candidates, -1 if it is none of them.
    """
    fast = metric.pairwise(anchors, columns)
    if metric.blur is None:
        return fast
    exact = _exact_where_near(
        metric, *jax.lax.stop_gradient((anchors, candidates, columns, fast)), itself
    )
    return _with_slope_of(exact, fast)


def finished(
    metric: Metric, measured: Float[Array, "anchors candidates"]
) -> Float[Array, "anchors candidates"]:
    """The distances, in the units of the metric."""
    return storing.behind_a_barrier(metric.finish(measured))


@jax.custom_jvp
def _with_slope_of(
    value: Float[Array, "anchors candidates"], other: Float[Array, "anchors candidates"]
) -> Float[Array, "anchors candidates"]:
    """`value`, with the derivatives of `other`."""
    del other
    return value


@_with_slope_of.defjvp
def _slope_of_other(
    primals: tuple[Float[Array, "anchors candidates"], ...],
    tangents: tuple[Float[Array, "anchors candidates"], ...],
) -> tuple[Float[Array, "anchors candidates"], Float[Array, "anchors candidates"]]:
    # The bare value would be a constant to the next derivative.
    return _with_slope_of(*primals), tangents[1]


def _exact_where_near(
    metric: Metric,
    anchors: Float[Array, "anchors dim"],
    candidates: Float[Array, "candidates dim"],
    columns: Float[Array, "dim candidates"],
    fast: Float[Array, "anchors candidates"],
    itself: Int[Array, "anchors"],
) -> Float[Array, "anchors candidates"]:
    """`fast`, with rows that hold a blurred distance measured as differences."""
    # An anchor is always near itself. That distance needs no digits, since nobody picks it.
    is_itself = jnp.arange(columns.shape[1]) == itself[:, None]
    nearest = jnp.min(jnp.where(is_itself, jnp.inf, fast), axis=1)
    near = nearest < metric.blur(anchors, columns)
    at_a_time = min(16 if jax.default_backend() == "cpu" else 256, len(near))

    def is_any_left(state):
        _, near = state
        return vmapped.largest_over_vmap(jnp.any(near))

    def measure_some(state):
        distances, near = state
        rows = jnp.nonzero(near, size=at_a_time, fill_value=len(near))[0]
        exact = metric.between(anchors.at[rows].get(mode="clip")[:, None], candidates)
        return distances.at[rows].set(exact, mode="drop"), near.at[rows].set(False, mode="drop")

    # The loop works in place, and as a rule it has nothing to do.
    return jax.lax.while_loop(is_any_left, measure_some, (fast, near))[0]
