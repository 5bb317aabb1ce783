"""Sums over all triplets of a batch, from squares of its distances on and above the diagonal.

The distance from a to b is that from b to a. Where a batch is compared with itself, a square of
the distances between two parts of it is measured once and mined from both of its sides: half the
distances, and half the products of their gradient, that a sweep over tiles of anchors takes.

No anchor's negatives are ever seen together, so that the miner has to be `mining.separable`.
Positives are few, and the distances to them are measured once, as differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from triplet_jax import mining
from triplet_jax.devices import collectives
from triplet_jax.engine import label_runs, near_duplicates, rules

WIDTH = 3
"""Places for positives. With more of them a CPU, whose cache they leave, has tiles done sooner."""
_SIZE = 256
# Below, there is too much on the diagonal, where both sides are the same.
_LEAST = 8 * _SIZE


def suit(rule: rules.Rule, points: Float[Array, "candidates dim"]) -> bool:
    """Whether squares give the sums of a rule, and sooner than tiles do, as measured on CPUs."""
    return (
        jax.default_backend() == "cpu"
        and len(points) >= _LEAST
        and rule.metric.by_product
        and rule.mining_metric is None
        and mining.is_separable(rule.mine)
        and not rules.asked(rule.penalize, dict.fromkeys(rules.GIVEN_TO_PENALTIES))
    )


def sweep(
    rule: rules.Rule,
    points: Float[Array, "candidates dim"],
    knobs: dict[str, Array],
    runs: label_runs.Runs,
) -> tuple[rules.Sums, tuple[Float[Array, "candidates dim"], dict[str, Array]]]:
    """The sums over the triplets of all points with each other, and their gradient.

    Args:
      rule: the metric, the miner and the penalty.
      points: prepared by the metric, sorted by label.
      knobs: `margin` and other numbers of the penalty.
      runs: where each one's positives are, `WIDTH` at most; of the points in any order.

    Returns:
      The sums, and the gradient of `penalty` in points and knobs.
    """
    order = jnp.argsort(runs.itself)
    runs = jax.tree.map(lambda x: x[order], runs)
    places, is_positive = label_runs.positive_places(runs, WIDTH)

    def measure_positives(points):
        positives = points.at[places].get(mode="clip")
        return rule.metric.finish(rule.metric.between(points[:, None], positives))

    to_positives, pull = jax.vjp(measure_positives, points)
    rows, size = len(points), _SIZE
    if rows % size and runs.shown is None:  # or rows that only fill up a part would be negatives
        runs = runs._replace(shown=jnp.full(rows, rows))
    parts = -(-rows // size)

    def cut(x):
        x = jnp.pad(x, [(0, parts * size - rows)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(parts, size, *x.shape[1:])

    def joined(x):
        return x.reshape(-1, x.shape[-1])[:rows]

    anchors, runs, is_positive = jax.tree.map(cut, (points, runs, is_positive))
    inputs = (anchors, anchors.swapaxes(1, 2), cut(to_positives))

    def of_square(carry, square):
        i, j = square
        runs_here = jax.tree.map(lambda x: x[i], runs).from_place(j * size)
        is_negative = label_runs.negatives(runs_here, size)

        def value(rows, columns, of_rows, of_columns, knobs):
            measured = near_duplicates.measured(
                rule.metric, rows, anchors[j], columns, runs_here.itself
            )
            distances = near_duplicates.finished(rule.metric, measured)
            add_up = functools.partial(_add_up_side, rule, distances, knobs)
            # On the diagonal both sides are the same.
            other = add_up(1, of_columns, is_positive[j], is_negative & (i != j))
            sums = jax.tree.map(jnp.add, add_up(0, of_rows, is_positive[i], is_negative), other)
            return sums.penalty, sums

        rows, columns, to_positives = inputs
        here = (rows[i], columns[j], to_positives[i], to_positives[j], knobs)
        penalty, pull, sums_here = jax.vjp(value, *here, has_aux=True)
        slopes = pull(jnp.ones_like(penalty))
        of_rows, of_columns, of_row_positives, of_column_positives, of_knobs = slopes
        sums, (rows, columns, to_positives), total_of_knobs = carry
        gradient = (
            rows.at[i].add(of_rows),
            columns.at[j].add(of_columns),
            to_positives.at[i].add(of_row_positives).at[j].add(of_column_positives),
        )
        sums, of_knobs = jax.tree.map(jnp.add, (sums, total_of_knobs), (sums_here, of_knobs))
        return (sums, gradient, of_knobs), None

    nothing = (rules.nothing_yet(rule), *jax.tree.map(jnp.zeros_like, (inputs, knobs)))
    nothing, _ = collectives.alike((nothing, points))
    on_and_above = tuple(map(jnp.asarray, np.triu_indices(parts)))
    # Two at a time, of which one need not wait for the other.
    (sums, gradient, of_knobs), _ = jax.lax.scan(of_square, nothing, on_and_above, unroll=2)
    of_rows, of_columns, of_positives = gradient
    of_points = joined(of_rows + of_columns.swapaxes(1, 2)) + pull(joined(of_positives))[0]
    return sums, (of_points, of_knobs)


def _add_up_side(rule, distances, knobs, axis, to_positives, is_positive, is_negative):
    """The sums of a square whose anchors stand along an axis."""

    def of_anchor(*seen):
        mined = rules.of_one_rank(rule.mine(*seen))
        return mined if axis == 0 else jax.tree.map(jnp.transpose, mined)

    # The square's axes are the first and the last of the triplets; positives stand between them.
    over_anchors = jax.vmap(of_anchor, in_axes=(0, 0, axis, axis), out_axes=2 * axis)
    mined = over_anchors(to_positives, is_positive, distances, is_negative)
    return rules.add_up(rule.penalize, mined, None, knobs)
