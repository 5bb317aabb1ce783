"""The sums over triplets of a miner that names candidates by their distances.

The gradient touches only the candidates that were picked. It needs none of the two matrix products
that the gradient of a matrix of distances takes. The picked distances are measured again as
differences, which is accurate for near duplicates too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from triplet_jax.engine import miner_views, near_duplicates, rules, sums, tiles
from triplet_jax.engine.batches import Anchors, Candidates
from triplet_jax.mining import MANY, Triplets
from triplet_jax.xla import storing


class OfPicks:
    """The `Accumulator` of a miner of picks."""

    def __init__(self, rule: rules.TripletRule, candidates: Candidates, knobs: rules.Knobs):
        metrics = (rule.metric, rule.mined_by)
        self.sizes = tiles.Sizes.of(tiles.OF_PICKS, candidates.rows.shape, *metrics)
        self._rule, self._candidates, self._knobs = rule, candidates, knobs

    def init(self) -> sums.Total:
        """The total of no tiles."""
        nothing = jax.tree.map(jnp.zeros_like, (self._candidates.rows, self._knobs))
        return sums.Total(sums.zeros(self._rule), *nothing)

    def add_tile(
        self, total: sums.Total, tile: Anchors
    ) -> tuple[sums.Total, Float[Array, "anchors dim"]]:
        """The total with a tile, and the gradient in the tile's anchors."""
        measured = ()
        if not self.sizes.measures_in_parts:
            measured = (_measure(self._rule, tile, self._candidates),)
        candidates = self.sizes.candidates
        return tiles.add_in_parts(
            self._add_part, total, tile, self.part_size, candidates, *measured
        )

    def finish(self, total: sums.Total) -> sums.Total:
        """The total, whose gradient of candidates stands in rows already."""
        return total

    def sums_of_tile(self, width: int, tile: Anchors) -> sums.TripletSums:
        """The sums of a tile. What is picked is a constant to every derivative."""
        picks = _find(self._rule, width, *jax.lax.stop_gradient((tile, self._candidates)))
        picked = _rows(picks, self._candidates.rows)
        return _sums(self._rule, picks, tile.rows, *picked, self._knobs)

    def part_size(self, width: int) -> int:
        """Anchors that are mined at a time, with so many slots for positives."""
        # Adding a part's gradient to that of all candidates should be the lesser work.
        dim = self._candidates.rows.shape[1]
        return self.sizes.part(width, least=-(-2 * dim // width))

    def _add_part(
        self,
        width: int,
        total: sums.Total,
        part: Anchors,
        measured: Float[Array, "anchors candidates"] | None = None,
    ) -> tuple[sums.Total, Float[Array, "anchors dim"]]:
        """The total with a part of a tile, and the gradient in the part's anchors."""
        picks = _find(self._rule, width, part, self._candidates, measured)

        def value(anchors, positives, negatives, knobs):
            found = _sums(self._rule, picks, anchors, positives, negatives, knobs)
            return found.penalty, found

        picked = _rows(picks, self._candidates.rows)
        penalty, pull, found = jax.vjp(value, part.rows, *picked, self._knobs, has_aux=True)
        of_anchors, of_positives, of_negatives, of_knobs = pull(jnp.ones_like(penalty))
        of_candidates = total.of_candidates.at[picks.positive].add(of_positives, mode="drop")
        of_candidates = of_candidates.at[picks.negative].add(of_negatives, mode="drop")
        so_far, more = (total.sums, total.of_knobs), (found, of_knobs)
        added, of_knobs = jax.tree.map(jnp.add, so_far, more)
        return sums.Total(added, of_candidates, of_knobs), jax.lax.stop_gradient(of_anchors)


class Picks(NamedTuple):
    """The candidates of each anchor's triplets, by their places."""

    positive: Int[Array, "anchors triplets"]
    negative: Int[Array, "anchors triplets"]
    weight: Float[Array, "anchors triplets"] | Bool[Array, "anchors triplets"]
    is_known: Bool[Array, "anchors triplets"]
    """Whether both distances are among those that the miner was given. True if the weight is 0."""


def _measure(
    rule: rules.TripletRule, anchors: Anchors, candidates: Candidates
) -> Float[Array, "anchors candidates"]:
    """The distances that the miner sees, before `metric.finish`."""
    rows, among = anchors.for_the_miner, candidates.for_the_miner
    return near_duplicates.measured(rule.mined_by, rows, among, among.T, anchors.masks.itself)


def _find(
    rule: rules.TripletRule,
    width: int,
    anchors: Anchors,
    candidates: Candidates,
    measured: Float[Array, "anchors candidates"] | None = None,
) -> Picks:
    """Mines anchors, whose distances may have been measured before."""
    measured = _measure(rule, anchors, candidates) if measured is None else measured
    distances = near_duplicates.finished(rule.mined_by, measured)
    view = miner_views.gather(distances, width, anchors.masks)
    mined = miner_views.mine(rule, view, candidates.for_the_miner.T, anchors.index)
    d_ap, d_an, weight = jnp.broadcast_arrays(*mined)
    flat = (len(anchors.index), -1)
    d_ap, d_an, weight = d_ap.reshape(flat), d_an.reshape(flat), weight.reshape(flat)
    which, is_known = _whose(d_ap, view.to_positives, view.is_positive)
    which = _each_its_own(which, d_ap, view.to_positives, view.is_positive)
    positive = jnp.take_along_axis(view.places, which, axis=1, mode="clip")
    negative, is_known_too = _whose(d_an, view.to_negatives, view.is_negative)
    return Picks(positive, negative, weight, (is_known & is_known_too) | (weight == 0))


def _rows(
    picks: Picks, candidates: Float[Array, "candidates dim"]
) -> tuple[Float[Array, "anchors triplets dim"], Float[Array, "anchors triplets dim"]]:
    """The positives and the negatives that were picked."""
    of_positives = candidates.at[picks.positive].get(mode="clip")
    return of_positives, candidates.at[picks.negative].get(mode="clip")


def _sums(
    rule: rules.TripletRule,
    picks: Picks,
    anchors: Float[Array, "anchors dim"],
    positives: Float[Array, "anchors triplets dim"],
    negatives: Float[Array, "anchors triplets dim"],
    knobs: rules.Knobs,
) -> sums.TripletSums:
    """The sums over triplets whose rows are given. A distance that is no candidate's gives NaN."""

    def between(a, b):
        return rule.metric.finish(rule.metric.between(a, b))

    d_ap = jnp.where(picks.is_known, between(anchors[:, None], positives), jnp.nan)
    d_an = between(anchors[:, None], negatives)

    def measure_d_pn():
        return between(positives, negatives)

    return sums.of_triplets(rule.penalize, Triplets(d_ap, d_an, picks.weight), measure_d_pn, knobs)


def _whose(
    picked: Float[Array, "anchors triplets"],
    distances: Float[Array, "anchors slots"],
    allowed: Bool[Array, "anchors slots"],
) -> tuple[Int[Array, "anchors triplets"], Bool[Array, "anchors triplets"]]:
    """The slot of each picked distance, the first of equals, and whether there is one.

    If there is none, the slot is one past the last. Of a negative, no gradient is then added: on a
    GPU, many additions to one place would wait for each other.
    """
    row = storing.behind_a_barrier(jnp.where(allowed, distances, jnp.inf))
    first = jax.vmap(_first_equal)(picked, row)
    return first, first < distances.shape[1]


def _each_its_own(
    which: Int[Array, "anchors triplets"],
    picked: Float[Array, "anchors triplets"],
    distances: Float[Array, "anchors slots"],
    allowed: Bool[Array, "anchors slots"],
) -> Int[Array, "anchors triplets"]:
    """Corrects `which` for a rule that keeps every positive: equal positives stay apart."""
    if picked.shape != distances.shape:
        return which
    return jnp.where((picked == distances) & allowed, jnp.arange(distances.shape[1]), which)


def _first_equal(
    picked: Float[Array, "triplets"], row: Float[Array, " slots"]
) -> Int[Array, "triplets"]:
    """Where each picked distance stands first in a row, or the row's length if it does not."""
    n = len(row)
    if len(picked) <= MANY:
        # A minimum of floats is faster than one of integers, or than argmax. It is a loop of its
        # own: fused with what stands before or after it, a CPU takes one number at a time.
        places = storing.behind_a_barrier(jnp.arange(n, dtype=jnp.float32))
        first = jnp.min(jnp.where(picked[:, None] == row, places, jnp.inf), axis=1)
        return jnp.minimum(storing.behind_a_barrier(first), n).astype(jnp.int32)
    ordered, places = jax.lax.sort((row, jnp.arange(n)), num_keys=2)
    at = jnp.minimum(jnp.searchsorted(ordered, picked, side="left"), n - 1)
    return jnp.where(ordered[at] == picked, places[at], n)
