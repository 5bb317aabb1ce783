"""Sums over all triplets of a batch from half of the matrix of its distances.

The distance from a to b is that from b to a. If a batch is compared with itself, the matrix is cut
into squares, and those on and above the diagonal suffice: each is measured once and mined from both
of its sides. That takes half the distances of a sweep over tiles of anchors, and half the products
of their gradient.

A square holds only some of an anchor's negatives, so that the miner has to be `mining.separable`.
Positives are few, and the distances to them are measured once, as differences.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import mining
from triplet_jax.devices import collectives
from triplet_jax.engine import counts, miner_views, near_duplicates, positive_masks, rules, sums

WIDTH = 3
"""Slots for positives. With more of them, squares leave the cache of a CPU and tiles are faster."""
_SIZE = 256
# In a smaller batch too many squares lie on the diagonal, where one of the two sides is wasted.
_LEAST = 8 * _SIZE


def suits(rule: rules.Rule, points: Float[Array, "candidates dim"]) -> bool:
    """Whether squares give the sums of a rule in less time than tiles, as measured on CPUs."""
    return (
        isinstance(rule, rules.TripletRule)
        and jax.default_backend() == "cpu"
        and len(points) >= _LEAST
        and rule.metric.by_product
        and rule.metric.both_ways
        and rule.mining_metric is None
        and mining.is_separable(rule.mine)
        and not rules.asked(rule.penalize, dict.fromkeys(rules.GIVEN_TO_PENALTIES))
    )


def sweep(
    rule: rules.TripletRule,
    points: Float[Array, "candidates dim"],
    knobs: rules.Knobs,
    runs: positive_masks.LabelRuns,
) -> sums.Total:
    """The sums over the triplets of all points with each other, and their gradient.

    Args:
      rule: the metric, the miner and the penalty.
      points: prepared by the metric, sorted by label.
      knobs: `margin` and other numbers of the penalty.
      runs: where each point's positives stand, `WIDTH` of them at most; in any order of the points.

    Returns:
      The sums, and the gradient of `penalty` in points and knobs.
    """
    order = jnp.argsort(runs.itself)
    runs = jax.tree.map(lambda x: x[order], runs)
    places, is_positive = runs.places(WIDTH)

    def measure_positives(points):
        positives = points.at[places].get(mode="clip")
        return rule.metric.finish(rule.metric.between(points[:, None], positives))

    to_positives, pull = jax.vjp(measure_positives, points)
    rows = len(points)
    if rows % _SIZE and runs.shown is None:  # rows that only fill up a part are no negatives
        runs = runs._replace(shown=jnp.full(rows, rows))
    anchors, runs, is_positive = jax.tree.map(_in_parts, (points, runs, is_positive))
    inputs = _Inputs(anchors, anchors.swapaxes(1, 2), _in_parts(to_positives))

    add_square = functools.partial(_add_square, rule, inputs, knobs, runs, is_positive)
    nothing = (sums.zeros(rule), *jax.tree.map(jnp.zeros_like, (inputs, knobs)))
    nothing, _ = collectives.alike((nothing, points))
    on_and_above = tuple(map(jnp.asarray, np.triu_indices(len(anchors))))
    # Two squares at a time, since neither waits for the other.
    (total, slopes, of_knobs), _ = jax.lax.scan(add_square, nothing, on_and_above, unroll=2)
    of_points = _joined(slopes.rows + slopes.columns.swapaxes(1, 2), rows)
    of_points += pull(_joined(slopes.to_positives, rows))[0]
    return sums.Total(total, of_points, of_knobs)


class _Inputs(NamedTuple):
    """All points in parts of `_SIZE`, or the gradient in them. Two parts make a square."""

    rows: Float[Array, "parts size dim"]
    columns: Float[Array, "parts dim size"]
    to_positives: Float[Array, "parts size positives"]


_Carry = tuple[sums.TripletSums, _Inputs, rules.Knobs]
"""The sums so far, and the gradient of the first of them in inputs and in knobs."""


def _in_parts(x: Shaped[Array, "candidates ..."]) -> Shaped[Array, "parts size ..."]:
    """`x` cut into parts, of which the last is filled up with zeros."""
    parts = -(-len(x) // _SIZE)
    x = jnp.pad(x, [(0, parts * _SIZE - len(x))] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(parts, _SIZE, *x.shape[1:])


def _joined(x: Float[Array, "parts size width"], rows: int) -> Float[Array, "rows width"]:
    return x.reshape(-1, x.shape[-1])[:rows]


def _add_square(
    rule: rules.TripletRule,
    inputs: _Inputs,
    knobs: rules.Knobs,
    runs: positive_masks.LabelRuns,
    is_positive: Bool[Array, "parts size positives"],
    carry: _Carry,
    square: tuple[Int[Array, ""], Int[Array, ""]],
) -> tuple[_Carry, None]:
    """Adds the triplets of the square of part `i` with part `j`, from both of its sides."""
    i, j = square
    runs = jax.tree.map(lambda x: x[i], runs).from_place(j * _SIZE)
    is_negative = runs.is_negative(_SIZE)

    def value(rows, columns, of_rows, of_columns, knobs):
        measured = near_duplicates.measured(rule.metric, rows, inputs.rows[j], columns, runs.itself)
        distances = near_duplicates.finished(rule.metric, measured)
        add_up = functools.partial(_add_up_side, rule, distances, knobs)
        # On the diagonal the other side holds the same triplets again.
        other = add_up(1, of_columns, is_positive[j], is_negative & (i != j))
        found = jax.tree.map(jnp.add, add_up(0, of_rows, is_positive[i], is_negative), other)
        return found.penalty, found

    rows, columns, to_positives = inputs
    here = (rows[i], columns[j], to_positives[i], to_positives[j], knobs)
    penalty, pull, found = jax.vjp(value, *here, has_aux=True)
    of_rows, of_columns, of_row_positives, of_column_positives, of_knobs = pull(
        jnp.ones_like(penalty)
    )
    so_far, slopes, so_far_of_knobs = carry
    slopes = _Inputs(
        slopes.rows.at[i].add(of_rows),
        slopes.columns.at[j].add(of_columns),
        slopes.to_positives.at[i].add(of_row_positives).at[j].add(of_column_positives),
    )
    so_far, of_knobs = jax.tree.map(jnp.add, (so_far, so_far_of_knobs), (found, of_knobs))
    return (so_far, slopes, of_knobs), None


def _add_up_side(
    rule: rules.TripletRule,
    distances: Float[Array, "rows columns"],
    knobs: rules.Knobs,
    axis: int,
    to_positives: Float[Array, "side positives"],
    is_positive: Bool[Array, "side positives"],
    is_negative: Bool[Array, "rows columns"],
) -> sums.TripletSums:
    """The sums of a square of distances whose anchors are its rows, axis 0, or columns, axis 1."""
    if counts.suits(rule, to_positives.shape[1], distances.shape[1 - axis]):
        if axis == 1:
            distances, is_negative = distances.T, is_negative.T
        arrays = (to_positives, is_positive, distances, is_negative)
        return counts.of_pairs(rule.mine, *arrays, knobs["margin"])

    def of_anchor(*arrays):
        mined = miner_views.of_one_rank(rule.mine(*arrays))
        return mined if axis == 0 else jax.tree.map(jnp.transpose, mined)

    # Triplets have the square's two axes first and last, and that of positives between them.
    over_anchors = jax.vmap(of_anchor, in_axes=(0, 0, axis, axis), out_axes=2 * axis)
    mined = over_anchors(to_positives, is_positive, distances, is_negative)
    return sums.of_triplets(rule.penalize, mined, None, knobs)
