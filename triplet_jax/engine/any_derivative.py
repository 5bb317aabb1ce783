"""The sums over all anchors as code that jax differentiates, for derivatives of any order.

A tile of the anchors is measured and mined at a time, as in the sweep. Each derivative computes a
tile again instead of keeping what the tile computed.
"""

import jax
import jax.numpy as jnp

from triplet_jax.devices import collectives
from triplet_jax.engine import accumulators, positive_masks, rules, sums, tiles
from triplet_jax.engine.batches import Batch


def over_anchors(
    rule: rules.Rule, batch: Batch, knobs: rules.Knobs, tile_size: int | None
) -> sums.Sums:
    """The sums. Arguments are those of `anchor_sums.over_anchors`.

    Which triplets count, and all sums but the first, are constants to every derivative.
    """
    _, anchors = tiles.in_label_order(rule, batch)
    nothing, anchors = collectives.alike((sums.zeros(rule), anchors))

    def of_width(width, nothing, anchors, candidates, knobs):
        @jax.checkpoint
        def add_tile(total, tile, candidates, knobs):
            first, *rest = accumulators.of_rule(rule, candidates, knobs).sums_of_tile(width, tile)
            found = type(total)(first, *jax.lax.stop_gradient(rest))
            return jax.tree.map(jnp.add, total, found)

        def step(total, tile):
            return add_tile(total, tile, candidates, knobs), None

        way = accumulators.of_rule(rule, candidates, knobs)
        size = min(way.part_size(width), tile_size or way.sizes.tile, len(anchors.index))
        return tiles.scan(step, nothing, anchors, size)[0]

    operands = (nothing, anchors, batch.candidates, knobs)
    return positive_masks.by_width(
        of_width, anchors.masks.positives, len(batch.candidates.rows), *operands
    )
