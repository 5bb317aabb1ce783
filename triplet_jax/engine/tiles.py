"""Parts of the anchors, and what all of them are compared with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from triplet_jax.engine import label_runs, rules
from triplet_jax.engine.references import Compared


class Tile(NamedTuple):
    """Some of the anchors."""

    anchors: Float[Array, "anchors dim"]
    runs: label_runs.Runs
    index: Int[Array, "anchors"]
    mined_anchors: Float[Array, "anchors dim"] | None = None
    """As the metric prepares them that triplets are mined by, where that is another."""

    @property
    def for_the_miner(self) -> Float[Array, "anchors dim"]:
        """The anchors whose distances a miner sees."""
        return self.anchors if self.mined_anchors is None else self.mined_anchors


class Against(NamedTuple):
    """The candidates of every tile."""

    candidates: Float[Array, "candidates dim"]
    mined_candidates: Float[Array, "candidates dim"] | None = None

    @property
    def for_the_miner(self) -> Float[Array, "candidates dim"]:
        """The candidates to which a miner sees the distances."""
        return self.candidates if self.mined_candidates is None else self.mined_candidates


class Sizes(NamedTuple):
    """How much there is at a time: on a CPU what its cache holds, elsewhere enough work."""

    distances: int
    """Of a tile. Each adds its gradient to that of all candidates, which should be rare."""
    mined: int
    """Of a tile that are mined at a time; where these are fewer, they are measured then, too."""
    triplets: int
    candidates: int = 0
    dim: int = 0
    coordinates: int = 1
    """Without a matrix product there is a number for each coordinate of each pair, too."""
    at_once: bool = False
    """Whether the rule is a loss of whole rows, which has no triplets."""
    of_rows: bool = False
    """Whether the gradient runs through whole rows of distances."""

    @classmethod
    def of(cls, rule: rules.Rule | rules.OfAnchor, against: Against) -> "Sizes":
        """Those that suit a rule and its candidates."""
        candidates, dim = against.candidates.shape
        at_once = isinstance(rule, rules.OfAnchor)
        of_rows = at_once or rules.answers_all_pairs(rule.mine, (candidates, dim))
        on_cpu = jax.default_backend() == "cpu"
        sizes = (_OF_ROWS if of_rows else _OF_PICKS) if on_cpu else _ELSEWHERE
        metrics = (rule.metric,) if at_once else (rule.metric, rule.mined_by)
        coordinates = 1 if all(metric.by_product for metric in metrics) else dim
        return sizes._replace(
            candidates=candidates,
            dim=dim,
            coordinates=coordinates,
            at_once=at_once,
            of_rows=of_rows,
        )

    @property
    def tile(self) -> int:
        """Anchors that are measured at a time."""
        return max(64, self.distances // max(1, self.coordinates * self.candidates))

    @property
    def in_parts(self) -> bool:
        """Whether parts of a tile are measured when they are mined."""
        return self.mined < self.distances

    def part(self, width: int) -> int:
        """Anchors that are mined at a time, with so many places for positives."""
        of_anchor = max(1 if self.at_once else width, self.coordinates) * self.candidates
        most = max(1, self.triplets // of_anchor)
        if not self.of_rows:
            # A part's work should exceed that of adding its gradient to that of all candidates.
            least = -(-2 * self.dim // width)
            most = max(most, min(least, _MOST_TRIPLETS // of_anchor))
        return min(most, max(64, self.mined // (self.coordinates * self.candidates)))


_OF_PICKS = Sizes(2**24, 2**19, 2**21)
_OF_ROWS = Sizes(2**22, 2**22, 3 * 2**18)
_ELSEWHERE = Sizes(2**25, 2**25, 2**27)
# Where classes are so large that memory is at stake.
_MOST_TRIPLETS = 2**24


def of_batch(
    rule: rules.Rule | rules.OfAnchor, compared: Compared
) -> tuple[Int[Array, "anchors"], Tile, Against]:
    """The order in which anchors are taken, all of them in it, and what they are compared with.

    Neighbours in label have classes of one size, and a tile then the width that these need.
    """
    runs = compared.runs
    if isinstance(rule, rules.OfAnchor) and runs.shown is None:
        # Rows that only fill up a part should see nobody.
        runs = runs._replace(shown=jnp.full(len(compared.index), len(compared.candidates)))
    order = jnp.argsort(runs.start)
    tile = Tile(compared.anchors, runs, compared.index, compared.mined_anchors)
    against = Against(compared.candidates, compared.mined_candidates)
    return order, jax.tree.map(lambda x: x[order], tile), against


def scan(
    step: Callable, carry: Any, tile: Tile, size: int, *more: Array
) -> tuple[Any, Float[Array, "anchors dim"] | None]:
    """`step(carry, tile, *more)` over parts of `size` anchors; the last is filled with nobody.

    A step returns the next carry, and rows of its anchors or None.
    """
    rows = len(tile.index)
    parts = -(-rows // size)
    if parts == 1:
        return step(carry, tile, *more)
    # Rather a few parts more than a copy of everything with rows that are filled up.
    parts = next((more for more in range(parts, 2 * parts) if rows % more == 0), parts)
    size = -(-rows // parts)
    missing = parts * size - rows

    def cut(x, filling=0):
        if not missing:
            return x.reshape(-1, size, *x.shape[1:])
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1), constant_values=filling)
        return x.reshape(-1, size, *x.shape[1:])

    tiles = jax.tree.map(cut, tile)
    tiles = tiles._replace(runs=tiles.runs._replace(itself=cut(tile.runs.itself, -1)))
    carry, rows_of_parts = jax.lax.scan(
        lambda carry, x: step(carry, *x), carry, (tiles, *map(cut, more))
    )
    return carry, jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:rows], rows_of_parts)
