"""The sums over all anchors as ordinary code, which jax differentiates as often as one likes.

A part of the anchors is measured and mined at a time, as in the one sweep; what a part computes is
computed again by each derivative instead of being kept.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from triplet_jax.devices import collectives
from triplet_jax.engine import all_pairs, batching, label_runs, near_duplicates, picks, rules, tiles
from triplet_jax.engine.references import Compared


def over_anchors(
    rule: rules.Rule | rules.OfAnchor,
    compared: Compared,
    knobs: dict[str, Any],
    tile_size: int | None,
) -> rules.Sums | rules.TermSums:
    """The sums; arguments are those of `sweep.over_anchors`.

    Which triplets count, and all sums but the first, are constants to every derivative.
    """
    _, tile, against = tiles.of_batch(rule, compared)
    sizes = tiles.Sizes.of(rule, against)
    widths = label_runs.widths(len(against.candidates))
    part = _rows if sizes.of_rows else _picks
    nothing, tile = collectives.alike((rules.nothing_yet(rule), tile))

    def of_width(width, nothing, tile, against, knobs):
        @jax.checkpoint
        def step(sums, tile, against, knobs):
            value, *rest = part(rule, width, tile, against, knobs)
            found = type(sums)(value, *jax.lax.stop_gradient(rest))
            return jax.tree.map(jnp.add, sums, found)

        def with_next(sums, tile):
            return step(sums, tile, against, knobs), None

        size = min(sizes.part(width), tile_size or sizes.tile, len(tile.index))
        return tiles.scan(with_next, nothing, tile, size)[0]

    most = batching.largest_of_batch(jnp.max(tile.runs.positives))
    branch = jnp.sum(jnp.asarray(widths) < most)
    branches = [functools.partial(of_width, width) for width in widths]
    return jax.lax.switch(branch, branches, nothing, tile, against, knobs)


def _rows(rule, width, tile, against, knobs):
    columns, itself = against.candidates.T, tile.runs.itself
    measured = near_duplicates.measured(
        rule.metric, tile.anchors, against.candidates, columns, itself
    )
    seen = rules.seen(near_duplicates.finished(rule.metric, measured), width, tile.runs)
    return all_pairs.sums(rule, seen, tile, against, columns, knobs)


def _picks(rule, width, tile, against, knobs):
    picked = picks.find(rule, width, *jax.lax.stop_gradient((tile, against)))
    picked_rows = picks.rows(picked, against.candidates)
    return picks.sums(rule, picked, tile.anchors, *picked_rows, knobs)
