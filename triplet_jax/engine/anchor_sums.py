"""The entry of the engine: sums over all anchors and their gradient, in one forward sweep.

Anchors are sorted by label and taken a tile at a time. A tile's distances are measured, mined and
penalised, and the gradient of its sum is taken on the spot, so that nothing need be kept for a
backward pass. `accumulators` says how a tile is added, which depends on the rule.

If a large batch is compared with itself and a miner judges every triplet by itself, `half_matrix`
takes the place of tiles.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax import errors
from triplet_jax.devices import collectives
from triplet_jax.engine import (
    accumulators,
    any_derivative,
    gradient,
    half_matrix,
    rules,
    sums,
    tiles,
    vmapped,
)
from triplet_jax.engine.batches import Batch

Slopes = tuple[Float[Array, "anchors dim"], Float[Array, "candidates dim"], rules.Knobs]
"""The gradient in the rows of anchors, in those of candidates, and in knobs."""


def over_anchors(
    rule: rules.Rule,
    batch: Batch,
    knobs: rules.Knobs,
    tile_size: int | None,
    derivatives: str,
) -> sums.Sums:
    """The sums over all anchors of a device.

    Args:
      rule: the metrics, the miner and the penalty; or a loss of one anchor.
      batch: the anchors, and the candidates that they are compared with.
      knobs: `margin` and other numbers, which the gradient reaches too.
      tile_size: the most anchors at a time; None chooses.
      derivatives: "first" for one sweep that finds value and gradient; "all" for sums that jax
        differentiates as often as needed.

    Returns:
      The sums. The first of them, `penalty` or `value`, is differentiable in the rows of anchors
      and candidates, and in knobs.

    Raises:
      InputError: the tile size is below 1.
    """
    if tile_size is not None and tile_size < 1:
        raise errors.InputError(f"tile_size={tile_size} must be at least 1, or None to choose.")
    if derivatives == "all":
        return any_derivative.over_anchors(rule, batch, knobs, tile_size)
    inputs = (batch.anchors.rows, batch.candidates.rows, knobs)
    found, slopes = _sweep(rule, *_constants(batch, knobs), tile_size)
    first, *rest = found
    rest = jax.lax.stop_gradient(rest)
    return type(found)(gradient.with_gradient(first, inputs, slopes), *rest)


def _constants(batch: Batch, knobs: rules.Knobs) -> tuple[Batch, rules.Knobs]:
    """The inputs without a gradient; in `shard_map` each device has its own inputs and slopes."""
    arrays = jax.lax.stop_gradient((batch.anchors, batch.candidates, knobs))
    anchors, candidates, knobs = collectives.alike(arrays)
    return batch._replace(anchors=anchors, candidates=candidates), knobs


def _sweep(
    rule: rules.Rule, batch: Batch, knobs: rules.Knobs, tile_size: int | None
) -> tuple[sums.Sums, Slopes]:
    """Sums by squares if that is faster and no anchor has too many positives, else by tiles."""

    def by_tiles():
        return _by_tiles(rule, batch, knobs, tile_size)

    def by_squares():
        total = half_matrix.sweep(rule, batch.candidates.rows, knobs, batch.anchors.masks)
        of_anchors = jnp.zeros_like(batch.anchors.rows)
        return total.sums, (of_anchors, total.of_candidates, total.of_knobs)

    if tile_size or not (batch.is_symmetric and half_matrix.suits(rule, batch.candidates.rows)):
        return by_tiles()
    most = vmapped.largest_over_vmap(jnp.max(batch.anchors.masks.positives))
    return jax.lax.cond(most <= half_matrix.WIDTH, by_squares, by_tiles)


def _by_tiles(
    rule: rules.Rule, batch: Batch, knobs: rules.Knobs, tile_size: int | None
) -> tuple[sums.Sums, Slopes]:
    order, anchors = tiles.in_label_order(rule, batch)
    way = accumulators.of_rule(rule, batch.candidates, knobs)
    nothing, _ = collectives.alike((way.init(), anchors))
    size = min(tile_size or way.sizes.tile, len(order))
    total, of_anchors = tiles.scan(way.add_tile, nothing, anchors, size)
    total = way.finish(total)
    of_anchors = jnp.zeros_like(of_anchors).at[order].set(of_anchors, unique_indices=True)
    return total.sums, (of_anchors, total.of_candidates, total.of_knobs)
