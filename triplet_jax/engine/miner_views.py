"""What a miner, or a loss of one anchor, sees of a batch."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from triplet_jax import mining
from triplet_jax.distances import Metric
from triplet_jax.engine import batches, near_duplicates, rules
from triplet_jax.mining import Triplets


class View(NamedTuple):
    """The four arrays that a miner sees, of many anchors, and where the positives stand."""

    to_positives: Float[mining.ToPositives, "anchors"]
    is_positive: Bool[mining.IsPositive, "anchors"]
    to_negatives: Float[mining.ToNegatives, "anchors"]
    is_negative: Bool[mining.IsNegative, "anchors"]
    places: Int[Array, "anchors positives"]
    """Among the candidates."""


def gather(distances: Float[Array, "anchors candidates"], width: int, masks: batches.Masks) -> View:
    """Gathers each anchor's positives into `width` padded slots. Negatives stay a masked row."""
    places, is_positive = masks.places(width)
    to_positives = jnp.take_along_axis(distances, places, axis=1, mode="clip")
    is_negative = masks.is_negative(distances.shape[1])
    return View(to_positives, is_positive, distances, is_negative, places)


def positives_to_negatives(
    metric: Metric, places: Int[Array, "anchors positives"], columns: Float[Array, "dim candidates"]
) -> Float[Array, "anchors positives candidates"]:
    """The distance from every positive of every anchor to every candidate."""
    positives = columns.T.at[places.reshape(-1)].get(mode="clip")
    distances = metric.finish(metric.pairwise(positives, columns))
    return distances.reshape(*places.shape, -1)


def mine(
    rule: rules.TripletRule,
    view: View,
    columns: Float[Array, "dim candidates"],
    index: Int[Array, "anchors"],
) -> Triplets:
    """The triplets of every anchor, each array with a leading axis of anchors.

    Args:
      rule: names the miner, its key and its metric.
      view: distances by the metric of mining.
      columns: the candidates, prepared by the metric of mining.
      index: the anchors' places in the global batch, which make the key of each.
    """
    offered = {"key": None, "dim": columns.shape[0], "positives_to_negatives": None}
    wanted = rules.asked(rule.mine, offered)
    of_each: dict[str, Any] = {}
    if "key" in wanted:
        of_each["key"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rule.key, index)
    if "positives_to_negatives" in wanted:
        of_each["positives_to_negatives"] = positives_to_negatives(
            rule.mined_by, view.places, columns
        )
    of_all = {name: value for name, value in wanted.items() if name == "dim"}

    def of_anchor(view, of_each):
        return of_one_rank(rule.mine(*view[:4], **of_each, **of_all))

    return jax.vmap(of_anchor)(view, of_each)


def of_one_rank(mined: Triplets) -> Triplets:
    """One anchor's triplets in arrays of one rank, which broadcast under an axis of anchors too."""
    rank = max(x.ndim for x in mined)
    return Triplets(*(x.reshape((1,) * (rank - x.ndim) + x.shape) for x in mined))


def mine_at_once(
    rule: rules.TripletRule, anchors: batches.Anchors, candidates: batches.Candidates, width: int
) -> tuple[View, Triplets]:
    """What the miner sees of all anchors, in `width` places for positives, and its triplets."""
    columns = candidates.for_the_miner.T
    measured = near_duplicates.measured(
        rule.mined_by,
        anchors.for_the_miner,
        candidates.for_the_miner,
        columns,
        anchors.masks.itself,
    )
    view = gather(near_duplicates.finished(rule.mined_by, measured), width, anchors.masks)
    return view, mine(rule, view, columns, anchors.index)
