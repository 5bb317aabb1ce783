"""The sums of a rule that looks at whole rows of distances: a loss, or a miner of all pairs."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax import errors
from triplet_jax.engine import near_duplicates, picks, rules
from triplet_jax.engine.tiles import Against, Tile
from triplet_jax.mining import Triplets


def sums(
    rule: rules.Rule | rules.OfAnchor,
    seen: rules.Seen,
    tile: Tile,
    against: Against,
    columns: Float[Array, "dim candidates"],
    knobs: dict[str, Any],
) -> rules.Sums | rules.TermSums:
    """Of a tile whose distances by the loss's metric are `seen`."""
    if isinstance(rule, rules.OfAnchor):
        return rules.add_up_terms(rule, seen, knobs)
    if rule.mining_metric is None:
        mined = rules.mine(rule, seen, columns, tile.index)
    else:
        mined = _mined_by_another(rule, seen, tile, against)

    def d_pn():
        return rules.positives_to_negatives(rule.metric, seen.places, columns)

    return rules.add_up(rule.penalize, mined, d_pn, knobs)


def _mined_by_another(rule, seen, tile, against):
    """What a miner takes by its own metric, with the distances of the loss's."""
    width = seen.to_positives.shape[1]
    distances = near_duplicates.finished(rule.mined_by, picks.measured(rule, tile, against))
    by_miner = rules.seen(distances, width, tile.runs)
    mined = rules.mine(rule, by_miner, against.for_the_miner.T, tile.index)
    shape = jnp.broadcast_shapes(*(x.shape for x in mined))
    if shape != (*seen.to_positives.shape, distances.shape[1]):
        raise errors.InputError(
            "mining_metric needs a miner whose distances are of those it is given, and this one"
            " computes others: leave mining_metric out."
        )
    is_known = (mined.d_ap == by_miner.to_positives[:, :, None]) & (
        mined.d_an == by_miner.to_negatives[:, None, :]
    )
    is_known |= mined.weight == 0
    d_ap = jnp.where(is_known, seen.to_positives[:, :, None], jnp.nan)
    return Triplets(d_ap, seen.to_negatives[:, None, :], mined.weight)
