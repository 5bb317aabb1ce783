"""The sums of a rule whose gradient runs through whole rows of distances.

The rule is a miner that answers with a matrix `[positives, negatives]`, or a loss of all of an
anchor's distances. The triplets of a tile are many more than its distances, and are taken a part of
the tile at a time.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax import errors
from triplet_jax.engine import counts, miner_views, near_duplicates, rules, sums, terms, tiles
from triplet_jax.engine.batches import Anchors, Candidates
from triplet_jax.mining import Triplets


class OfAllPairs:
    """The `Accumulator` of a miner of all pairs, or of a loss of one anchor."""

    def __init__(self, rule: rules.Rule, candidates: Candidates, knobs: rules.Knobs):
        of_triplets = isinstance(rule, rules.TripletRule)
        metrics = (rule.metric, rule.mined_by) if of_triplets else (rule.metric,)
        self.sizes = tiles.Sizes.of(tiles.OF_ALL_PAIRS, candidates.rows.shape, *metrics)
        self._rule, self._candidates, self._knobs = rule, candidates, knobs
        self._columns = candidates.rows.T

    def init(self) -> sums.Total:
        """The total of no tiles, in which the gradient of candidates stands in columns."""
        nothing = jax.tree.map(jnp.zeros_like, (self._columns, self._knobs))
        return sums.Total(sums.zeros(self._rule), *nothing)

    def add_tile(
        self, total: sums.Total, tile: Anchors
    ) -> tuple[sums.Total, Float[Array, "anchors dim"]]:
        """The total with a tile, and the gradient in the tile's anchors.

        The tile is measured at once. Its parts give the slopes of their sums in these distances.
        """
        measure = functools.partial(self._measure, tile)
        measured, pull = jax.vjp(measure, tile.rows, self._columns)
        total, slopes = tiles.add_in_parts(
            self._add_part, total, tile, self.part_size, self.sizes.candidates, measured
        )
        of_anchors, of_columns = pull(slopes)
        total = total._replace(of_candidates=total.of_candidates + of_columns)
        return total, jax.lax.stop_gradient(of_anchors)

    def finish(self, total: sums.Total) -> sums.Total:
        """The total with the gradient of candidates in rows."""
        return total._replace(of_candidates=total.of_candidates.T)

    def sums_of_tile(self, width: int, tile: Anchors) -> sums.Sums:
        """The sums of a tile."""
        measured = self._measure(tile, tile.rows, self._columns)
        distances = near_duplicates.finished(self._rule.metric, measured)
        view = miner_views.gather(distances, width, tile.masks)
        return self._sums(view, tile, self._columns, self._knobs)

    def part_size(self, width: int) -> int:
        """Anchors that are mined at a time, with so many slots for positives."""
        rule = self._rule
        few = isinstance(rule, rules.AnchorRule) and not terms.is_of_all_pairs(rule.measure)
        return self.sizes.part(1 if few else width)

    def _measure(
        self,
        tile: Anchors,
        rows: Float[Array, "anchors dim"],
        columns: Float[Array, "dim candidates"],
    ) -> Float[Array, "anchors candidates"]:
        """The distances of a tile, whose rows are given apart, before `metric.finish`."""
        return near_duplicates.measured(
            self._rule.metric, rows, self._candidates.rows, columns, tile.masks.itself
        )

    def _add_part(
        self,
        width: int,
        total: sums.Total,
        part: Anchors,
        measured: Float[Array, "anchors candidates"],
    ) -> tuple[sums.Total, Float[Array, "anchors candidates"]]:
        """The total with a part of a tile, and the slopes of the part's sum in `measured`."""
        finish = functools.partial(near_duplicates.finished, self._rule.metric)
        distances, pull_measured = jax.vjp(finish, measured)
        view = miner_views.gather(distances, width, part.masks)

        def value(to_positives, to_negatives, columns, knobs):
            here = view._replace(to_positives=to_positives, to_negatives=to_negatives)
            found = self._sums(here, part, columns, knobs)
            return found[0], found

        inputs = (view.to_positives, view.to_negatives, self._columns, self._knobs)
        first, pull, found = jax.vjp(value, *inputs, has_aux=True)
        of_positives, of_negatives, *slopes = pull(jnp.ones_like(first))
        total = jax.tree.map(jnp.add, total, sums.Total(found, *slopes))
        # Adding a few numbers in place is cheap. The gradient of `gather` would be a matrix.
        rows = jnp.arange(len(view.places))[:, None]
        of_distances = of_negatives.at[rows, view.places].add(of_positives, mode="drop")
        return total, jax.lax.stop_gradient(pull_measured(of_distances)[0])

    def _sums(
        self,
        view: miner_views.View,
        tile: Anchors,
        columns: Float[Array, "dim candidates"],
        knobs: rules.Knobs,
    ) -> sums.Sums:
        """The sums of a tile with the distances of a view, which are those of the loss's metric."""
        rule = self._rule
        if isinstance(rule, rules.AnchorRule):
            return sums.of_terms(rule, view, knobs)
        if counts.suits(rule, view.to_positives.shape[1], len(self._candidates.rows)):
            return counts.of_pairs(rule.mine, *view[:4], knobs["margin"])
        if rule.mining_metric is None:
            mined = miner_views.mine(rule, view, columns, tile.index)
        else:
            mined = _mined_by_another_metric(rule, view, tile, self._candidates)

        def measure_d_pn():
            return miner_views.positives_to_negatives(rule.metric, view.places, columns)

        return sums.of_triplets(rule.penalize, mined, measure_d_pn, knobs)


def _mined_by_another_metric(
    rule: rules.TripletRule, view: miner_views.View, tile: Anchors, candidates: Candidates
) -> Triplets:
    """The triplets mined by the metric of mining, with their distances by that of the loss."""
    width = view.to_positives.shape[1]
    seen, mined = miner_views.mine_at_once(rule, tile, candidates, width)
    shape = jnp.broadcast_shapes(*(x.shape for x in mined))
    if shape != (*view.to_positives.shape, view.to_negatives.shape[1]):
        raise errors.InputError(
            "mining_metric needs a miner that answers with distances it was given, and this one"
            " computes new ones: leave mining_metric out."
        )
    is_known = (mined.d_ap == seen.to_positives[:, :, None]) & (
        mined.d_an == seen.to_negatives[:, None, :]
    )
    is_known |= mined.weight == 0
    d_ap = jnp.where(is_known, view.to_positives[:, :, None], jnp.nan)
    return Triplets(d_ap, view.to_negatives[:, None, :], mined.weight)
