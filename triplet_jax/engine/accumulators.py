"""The two ways to add up the sums of a loss over tiles of anchors, with their gradient."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from triplet_jax.engine import all_pairs, picks, rules, sums, tiles
from triplet_jax.engine.batches import Anchors, Candidates


@runtime_checkable
class Accumulator(Protocol):
    """Adds up the sums of a rule, and the gradient of the first of them, tile by tile.

    It holds the rule, the candidates and the knobs. `init`, `add_tile` and `finish` find value and
    gradient in one forward sweep; `sums_of_tile` is code that jax differentiates.
    """

    sizes: tiles.Sizes

    def init(self) -> sums.Total:
        """The total of no tiles."""
        ...

    def add_tile(
        self, total: sums.Total, tile: Anchors
    ) -> tuple[sums.Total, Float[Array, "anchors dim"]]:
        """The total with a tile, and the gradient in the tile's anchors."""
        ...

    def finish(self, total: sums.Total) -> sums.Total:
        """The total with the gradient of candidates in rows."""
        ...

    def sums_of_tile(self, width: int, tile: Anchors) -> sums.Sums:
        """The sums of a tile, in `width` slots for positives. Only the first is differentiated."""
        ...

    def part_size(self, width: int) -> int:
        """Anchors that are mined at a time, with so many slots for positives."""
        ...


def of_rule(rule: rules.Rule, candidates: Candidates, knobs: rules.Knobs) -> Accumulator:
    """The way that suits a rule.

    A miner whose triplets name candidates by their distances is one of picks. A miner that answers
    with a matrix `[positives, negatives]`, and a loss of all distances, need whole rows.
    """
    of_all_pairs = isinstance(rule, rules.AnchorRule) or rules.answers_all_pairs(
        rule.mine, *candidates.rows.shape
    )
    way = all_pairs.OfAllPairs if of_all_pairs else picks.OfPicks
    return way(rule, candidates, knobs)
