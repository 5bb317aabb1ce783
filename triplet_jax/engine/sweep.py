"""The engine: sums over all anchors and their gradient, in one forward sweep.

Anchors are sorted by label and taken a tile at a time. A tile's distances are measured,
mined and penalised, and the gradient of the sum is taken on the spot, so that nothing
need be kept for a backward pass. A loss of all of an anchor's distances is summed in the same
way, through their matrix. Of triplets there are two kinds of miner, told apart by the shapes of
their answers:

* *picks*: the answer names candidates by their distances. The gradient touches only the
  candidates that were picked, so it needs none of the two matrix products that the
  gradient of a full matrix of distances costs; and the picked distances are measured
  again as differences, which is accurate for near duplicates.
* *all pairs*, `[positives, negatives]`: the gradient runs through the matrix. The triplets of
  a tile's distances are many more than these, and are taken a part at a time.

A rule that judges every triplet by itself may be taken in `half_matrix` instead, where a large
batch is compared with itself.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from triplet_jax import errors
from triplet_jax.devices import collectives
from triplet_jax.engine import (
    all_pairs,
    batching,
    gradient,
    half_matrix,
    label_runs,
    near_duplicates,
    picks,
    plain,
    rules,
    tiles,
)
from triplet_jax.engine.references import Compared
from triplet_jax.mining import Triplets


def over_anchors(
    rule: rules.Rule | rules.OfAnchor,
    compared: Compared,
    knobs: dict[str, Any],
    tile_size: int | None,
    derivatives: str,
) -> rules.Sums | rules.TermSums:
    """The sums over all anchors: of triplets, or of a loss of all of an anchor's distances.

    Args:
      rule: the metrics, the miner and the penalty; or the loss.
      compared: the anchors, on whose places in the global batch random draws depend, and what
        they are compared with.
      knobs: `margin` and other numbers of the penalty, which the gradient reaches too.
      tile_size: anchors at a time; None chooses.
      derivatives: "first" for one sweep that finds the gradient too; "all" for sums that jax
        differentiates, as often as one likes.

    Returns:
      The sums, of which the first, `penalty` or `value`, is differentiable in anchors, candidates
      and knobs.

    Raises:
      InputError: the tile size is below 1.
    """
    if tile_size is not None and tile_size < 1:
        raise errors.InputError(f"tile_size={tile_size} must be at least 1, or None to choose.")
    if derivatives == "all":
        return plain.over_anchors(rule, compared, knobs, tile_size)
    inputs = (compared.anchors, compared.candidates, knobs)
    sums, slopes = _sweep(rule, *_constant(compared, knobs), tile_size)
    value, *rest = sums
    rest = jax.lax.stop_gradient(rest)
    return type(sums)(gradient.with_gradient(value, inputs, slopes), *rest)


def mine(
    rule: rules.Rule,
    anchors: Float[Array, "anchors dim"],
    candidates: Float[Array, "candidates dim"],
    runs: label_runs.Runs,
    index: Int[Array, "anchors"],
    width: int,
) -> tuple[rules.Seen, Triplets]:
    """What the miner sees of all anchors at once, and its answer, for `width` positives each."""
    columns = candidates.T
    measured = near_duplicates.measured(rule.mined_by, anchors, candidates, columns, runs.itself)
    seen = rules.seen(near_duplicates.finished(rule.mined_by, measured), width, runs)
    return seen, rules.mine(rule, seen, columns, index)


def _constant(compared, knobs):
    """The same without a gradient, as each device has it for itself: so are their slopes then."""
    rows = ("anchors", "candidates", "mined_anchors", "mined_candidates")
    arrays = {name: jax.lax.stop_gradient(getattr(compared, name)) for name in rows}
    arrays |= {"runs": compared.runs, "index": compared.index}
    arrays, knobs = collectives.alike((arrays, jax.lax.stop_gradient(knobs)))
    return compared._replace(**arrays), knobs


def _sweep(rule, compared, knobs, tile_size):
    """In squares where they suit and no anchor has too many positives for them, else in tiles."""

    def in_tiles():
        return _in_tiles(rule, compared, knobs, tile_size)

    def in_squares():
        sums, slopes = half_matrix.sweep(rule, compared.candidates, knobs, compared.runs)
        return sums, (jnp.zeros_like(compared.anchors), *slopes)

    of_triplets = isinstance(rule, rules.Rule)
    suits = of_triplets and compared.symmetric and half_matrix.suit(rule, compared.candidates)
    if tile_size or not suits:
        return in_tiles()
    most = batching.largest_of_batch(jnp.max(compared.runs.positives))
    return jax.lax.cond(most <= half_matrix.WIDTH, in_squares, in_tiles)


def _in_tiles(rule, compared, knobs, tile_size):
    order, tile, against = tiles.of_batch(rule, compared)
    sizes = tiles.Sizes.of(rule, against)
    widths = label_runs.widths(len(against.candidates))
    tile_size = min(tile_size or sizes.tile, len(order))
    columns = against.candidates.T

    def of_tile(carry, tile):
        """Measures a tile, and mines it by as many places for positives as it needs."""
        most = batching.largest_of_batch(jnp.max(tile.runs.positives))
        branch = jnp.sum(jnp.asarray(widths) < most)
        branches = [functools.partial(of_width, width) for width in widths]
        if not sizes.of_rows:
            matrix = () if sizes.in_parts else (picks.measured(rule, tile, against),)
            return jax.lax.switch(branch, branches, carry, tile, *matrix)

        def measure(anchors, columns):
            itself = tile.runs.itself
            return near_duplicates.measured(
                rule.metric, anchors, against.candidates, columns, itself
            )

        matrix, pull = jax.vjp(measure, tile.anchors, columns)
        carry, slopes = jax.lax.switch(branch, branches, carry, tile, matrix)
        sums, (of_columns, of_knobs) = carry
        of_anchors, more = pull(slopes)
        return (sums, (of_columns + more, of_knobs)), jax.lax.stop_gradient(of_anchors)

    def of_width(width, carry, tile, *matrix):
        of_kind = _all_pairs if sizes.of_rows else _picks
        step = functools.partial(of_kind, rule, width, against, knobs)
        return tiles.scan(step, carry, tile, sizes.part(width), *matrix)

    like = columns if sizes.of_rows else against.candidates
    nothing = (rules.nothing_yet(rule), jax.tree.map(jnp.zeros_like, (like, knobs)))
    nothing, _ = collectives.alike((nothing, tile))
    (sums, (of_candidates, of_knobs)), of_anchors = tiles.scan(of_tile, nothing, tile, tile_size)
    if sizes.of_rows:
        of_candidates = of_candidates.T
    of_anchors = jnp.zeros_like(of_anchors).at[order].set(of_anchors, unique_indices=True)
    return sums, (of_anchors, of_candidates, of_knobs)


def _all_pairs(rule, width, against, knobs, carry, tile, measured):
    """Adds a part of a tile of a rule that looks at whole rows of distances.

    Returns the slopes of its sum in `measured`, too.
    """
    distances, pull_measured = jax.vjp(
        functools.partial(near_duplicates.finished, rule.metric), measured
    )
    seen = rules.seen(distances, width, tile.runs)

    def value(to_positives, to_negatives, columns, knobs):
        seen_here = seen._replace(to_positives=to_positives, to_negatives=to_negatives)
        sums = all_pairs.sums(rule, seen_here, tile, against, columns, knobs)
        return sums[0], sums

    inputs = (seen.to_positives, seen.to_negatives, against.candidates.T, knobs)
    total, pull, sums = jax.vjp(value, *inputs, has_aux=True)
    of_positives, of_negatives, *slopes = pull(jnp.ones_like(total))
    carry = jax.tree.map(jnp.add, carry, (sums, tuple(slopes)))
    # Few numbers are added in place; a gradient of the cutting out would be a matrix.
    rows = jnp.arange(len(seen.places))[:, None]
    of_distances = of_negatives.at[rows, seen.places].add(of_positives, mode="drop")
    return carry, jax.lax.stop_gradient(pull_measured(of_distances)[0])


def _picks(rule, width, against, knobs, carry, tile, *matrix):
    """Adds a part of a tile of a miner that answers with picks."""
    picked = picks.find(rule, width, tile, against, *matrix)

    def value(anchors, positives, negatives, knobs):
        sums = picks.sums(rule, picked, anchors, positives, negatives, knobs)
        return sums.penalty, sums

    picked_rows = picks.rows(picked, against.candidates)
    penalty, pull, sums = jax.vjp(value, tile.anchors, *picked_rows, knobs, has_aux=True)
    of_anchors, of_positives, of_negatives, more_of_knobs = pull(jnp.ones_like(penalty))
    total, (of_candidates, of_knobs) = carry
    of_candidates = of_candidates.at[picked.positive].add(of_positives, mode="drop")
    of_candidates = of_candidates.at[picked.negative].add(of_negatives, mode="drop")
    total, of_knobs = jax.tree.map(jnp.add, (total, of_knobs), (sums, more_of_knobs))
    return (total, (of_candidates, of_knobs)), jax.lax.stop_gradient(of_anchors)
