"""The triplets of a miner that names candidates by their distances, measured as differences."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from triplet_jax.engine import near_duplicates, rules
from triplet_jax.engine.tiles import Against, Tile
from triplet_jax.mining import MANY, Triplets, written_once


class Picks(NamedTuple):
    """Of each anchor, the places of the candidates of its triplets."""

    positive: Int[Array, "anchors triplets"]
    negative: Int[Array, "anchors triplets"]
    weight: Float[Array, "anchors triplets"] | Bool[Array, "anchors triplets"]
    is_known: Bool[Array, "anchors triplets"]
    """Whether both distances are among those that the miner was given, or nothing counts."""


def measured(rule: rules.Rule, tile: Tile, against: Against) -> Float[Array, "anchors candidates"]:
    """What a miner is to see of a tile, not yet finished."""
    anchors, candidates = tile.for_the_miner, against.for_the_miner
    return near_duplicates.measured(
        rule.mined_by, anchors, candidates, candidates.T, tile.runs.itself
    )


def find(
    rule: rules.Rule,
    width: int,
    tile: Tile,
    against: Against,
    matrix: Float[Array, "anchors candidates"] | None = None,
) -> Picks:
    """Mines a tile, whose `measured` may be given."""
    matrix = measured(rule, tile, against) if matrix is None else matrix
    seen = rules.seen(near_duplicates.finished(rule.mined_by, matrix), width, tile.runs)
    mined = rules.mine(rule, seen, against.for_the_miner.T, tile.index)
    d_ap, d_an, weight = jnp.broadcast_arrays(*mined)
    flat = (len(tile.index), -1)
    d_ap, d_an, weight = d_ap.reshape(flat), d_an.reshape(flat), weight.reshape(flat)
    which, is_known = _whose(d_ap, seen.to_positives, seen.is_positive)
    which = _each_its_own(which, d_ap, seen.to_positives, seen.is_positive)
    positive = jnp.take_along_axis(seen.places, which, axis=1, mode="clip")
    negative, is_known_too = _whose(d_an, seen.to_negatives, seen.is_negative)
    return Picks(positive, negative, weight, (is_known & is_known_too) | (weight == 0))


def rows(
    picked: Picks, candidates: Float[Array, "candidates dim"]
) -> tuple[Float[Array, "anchors triplets dim"], Float[Array, "anchors triplets dim"]]:
    """The positives and the negatives that were picked."""
    of_positives = candidates.at[picked.positive].get(mode="clip")
    return of_positives, candidates.at[picked.negative].get(mode="clip")


def sums(
    rule: rules.Rule,
    picked: Picks,
    anchors: Float[Array, "anchors dim"],
    positives: Float[Array, "anchors triplets dim"],
    negatives: Float[Array, "anchors triplets dim"],
    knobs: dict[str, Any],
) -> rules.Sums:
    """The sums over triplets whose rows are given; NaN where a pick is nobody's distance."""

    def between(a, b):
        return rule.metric.finish(rule.metric.between(a, b))

    d_ap = jnp.where(picked.is_known, between(anchors[:, None], positives), jnp.nan)
    d_an = between(anchors[:, None], negatives)

    def d_pn():
        return between(positives, negatives)

    return rules.add_up(rule.penalize, Triplets(d_ap, d_an, picked.weight), d_pn, knobs)


def _whose(picked, distances, allowed):
    """Which candidate each picked distance belongs to, the first of equals, if to any.

    Where to none it is past the last, so that nothing is added for it: on a GPU, many additions to
    one place wait for each other.
    """
    # Or the mask is worked out again for every pick.
    row = written_once(jnp.where(allowed, distances, jnp.inf))
    first = jax.vmap(_first_equal)(picked, row)
    return first, first < distances.shape[1]


def _each_its_own(which, picked, distances, allowed):
    """Corrects `which` of a rule that keeps every positive: of equals, each is kept."""
    if picked.shape != distances.shape:
        return which
    return jnp.where((picked == distances) & allowed, jnp.arange(distances.shape[1]), which)


def _first_equal(picked, row):
    """Where in a row each picked distance stands first; the length of the row where nowhere."""
    n = len(row)
    if len(picked) <= MANY:
        # A minimum of floats, which is faster than one of integers or than argmax. With what
        # stands before or after it in the same loop, a CPU would not take several at a time.
        places = written_once(jnp.arange(n, dtype=jnp.float32))
        first = jnp.min(jnp.where(picked[:, None] == row, places, jnp.inf), axis=1)
        return jnp.minimum(written_once(first), n).astype(jnp.int32)
    ordered, places = jax.lax.sort((row, jnp.arange(n)), num_keys=2)
    at = jnp.minimum(jnp.searchsorted(ordered, picked, side="left"), n - 1)
    return jnp.where(ordered[at] == picked, places[at], n)
