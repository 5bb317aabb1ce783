"""Tiles of anchors: how many anchors are taken at a time, and the loops over them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from triplet_jax.devices import caches
from triplet_jax.distances import Metric
from triplet_jax.engine import positive_masks, rules, sums
from triplet_jax.engine.batches import Anchors, Batch


class Budget(NamedTuple):
    """How many numbers are worked on at a time."""

    measured: int
    """Distances of a tile. Each tile adds its gradient to that of all candidates, so that a sweep
    should have few tiles."""
    mined: int
    """Distances that are mined at a time. If that is less than a tile, a part of the tile is
    measured when it is mined."""
    triplets: int
    """Triplets that are penalised at a time."""


# On a CPU, one array of a part's triplets takes three times a core's second-level cache. Parts that
# fit into it took 1.1 to 1.7 times as long on quiet cores where classes have 40 examples.
OF_PICKS = Budget(2**24, 2**19, 2**21)
OF_ALL_PAIRS = Budget(2**22, 2**22, 3 * caches.second_level() // 4)
# Enough work for an accelerator.
_ON_ACCELERATORS = Budget(2**25, 2**25, 2**27)
# The limit of memory where classes are large.
_MOST_TRIPLETS = 2**24


class Sizes(NamedTuple):
    """How many anchors a tile has, and how many of them are mined at a time."""

    budget: Budget
    candidates: int
    coordinates: int
    """Numbers that are worked out for each pair: 1 if a matrix product measures it, else one for
    each coordinate."""

    @classmethod
    def of(cls, on_cpu: Budget, shape: tuple[int, int], *metrics: Metric) -> "Sizes":
        """The sizes that suit the device, for candidates `shape` that some metrics compare."""
        candidates, dim = shape
        budget = on_cpu if jax.default_backend() == "cpu" else _ON_ACCELERATORS
        return cls(budget, candidates, 1 if all(metric.by_product for metric in metrics) else dim)

    @property
    def tile(self) -> int:
        """Anchors that are measured at a time."""
        return max(64, self.budget.measured // max(1, self.coordinates * self.candidates))

    @property
    def measures_in_parts(self) -> bool:
        """Whether a part of a tile is measured when it is mined, and not the tile at once."""
        return self.budget.mined < self.budget.measured

    def part(self, width: int, least: int = 1) -> int:
        """Anchors that are mined at a time.

        Args:
          width: triplets of an anchor for each candidate.
          least: anchors from which on a part does enough work, if memory allows.
        """
        of_anchor = max(width, self.coordinates) * self.candidates
        most = max(1, self.budget.triplets // of_anchor)
        most = max(most, min(least, _MOST_TRIPLETS // of_anchor))
        return min(most, max(64, self.budget.mined // (self.coordinates * self.candidates)))


def in_label_order(rule: rules.Rule, batch: Batch) -> tuple[Int[Array, "anchors"], Anchors]:
    """An order of the anchors in which neighbours have classes of one size, and the anchors in it.

    The width of a tile is then what its classes need, and not the largest class of the batch.
    """
    masks = batch.anchors.masks
    if isinstance(rule, rules.AnchorRule):
        masks = masks.hiding_rows_past_the_end(len(batch.candidates.rows))
    order = masks.order()
    return order, jax.tree.map(lambda x: x[order], batch.anchors._replace(masks=masks))


def scan(
    step: Callable, carry: Any, anchors: Anchors, size: int, *more: Float[Array, "anchors ..."]
) -> tuple[Any, Float[Array, "anchors _"] | None]:
    """`carry, rows = step(carry, tile, *more)` over tiles of at most `size` anchors.

    The last tile is filled up with anchors that have no positives.

    Args:
      step: returns the next carry, and rows of its anchors or None.
      carry: what the first step is given.
      anchors: all of them.
      size: anchors of a tile, at most.
      *more: arrays that are cut into tiles as the anchors are.

    Returns:
      The last carry, and the rows of all anchors or None.
    """
    rows = len(anchors.index)
    tiles = -(-rows // size)
    if tiles == 1:
        return step(carry, anchors, *more)
    # A few tiles more are cheaper than a copy of all arrays with rows that fill up the last tile.
    tiles = next((count for count in range(tiles, 2 * tiles) if rows % count == 0), tiles)
    size = -(-rows // tiles)
    missing = tiles * size - rows

    def cut(x, filling=0):
        if not missing:
            return x.reshape(-1, size, *x.shape[1:])
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=filling)
        return x.reshape(-1, size, *x.shape[1:])

    cut_anchors = jax.tree.map(cut, anchors)
    itself = cut(anchors.masks.itself, -1)
    cut_anchors = cut_anchors._replace(masks=cut_anchors.masks._replace(itself=itself))
    carry, rows_of_tiles = jax.lax.scan(
        lambda carry, x: step(carry, *x), carry, (cut_anchors, *map(cut, more))
    )
    return carry, jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:rows], rows_of_tiles)


def add_in_parts(
    add_part: Callable,
    total: sums.Total,
    tile: Anchors,
    part_size: Callable[[int], int],
    candidates: int,
    *more: Float[Array, "anchors candidates"],
) -> tuple[sums.Total, Float[Array, "anchors _"]]:
    """Adds a tile part by part, with as many slots for positives as the tile needs.

    Args:
      add_part: `total, rows = add_part(width, total, part, *more)`, for a static width.
      total: the sums so far.
      tile: the anchors to add.
      part_size: anchors of a part, by width.
      candidates: how many there are.
      *more: arrays that are cut into parts as the anchors are.
    """

    def of_width(width, total, tile, *more):
        def step(total, part, *more):
            return add_part(width, total, part, *more)

        return scan(step, total, tile, part_size(width), *more)

    return positive_masks.by_width(of_width, tile.masks.positives, candidates, total, tile, *more)
