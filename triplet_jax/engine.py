"""The engine: sums over all anchors and their gradient, in one forward sweep.

Anchors are sorted by label and taken a tile at a time. A tile's distances are measured,
mined and penalised, and the gradient of the sum is taken on the spot, so that nothing
need be kept for a backward pass. A loss of all of an anchor's distances is summed in the same
way, through their matrix. Of triplets there are two kinds of miner, told apart by the shapes of
their answers:

* *picks*: the answer names candidates by their distances. The gradient touches only the
  candidates that were picked, so it needs none of the two matrix products that the
  gradient of a full matrix of distances costs; and the picked distances are measured
  again as differences, which is accurate for near duplicates.
* *all pairs*, `[positives, negatives]`: the gradient runs through the matrix. The triplets of
  a tile's distances are many more than these, and are taken a part at a time.

A rule that judges every triplet by itself may be taken in `squares` instead, where a large batch
is compared with itself.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from triplet_jax import batching, masks, near, rules, squares
from triplet_jax.candidates import Compared
from triplet_jax.mining import MANY, Triplets, written_once


class _Sizes(NamedTuple):
    """How much there is at a time: on a CPU what its cache holds, elsewhere enough work."""

    distances: int
    """Of a tile. Each adds its gradient to that of all candidates, which should be rare."""
    part: int
    """Of a tile that are mined at a time; where these are fewer, they are measured then, too."""
    triplets: int


_SIZES_OF_PICKS = {"cpu": _Sizes(2**24, 2**19, 2**21)}
_SIZES_OF_ALL_PAIRS = {"cpu": _Sizes(2**22, 2**22, 3 * 2**18)}
_SIZES_ELSEWHERE = _Sizes(2**25, 2**25, 2**27)
# Where classes are so large that memory is at stake.
_MOST_TRIPLETS = 2**24


class _Tile(NamedTuple):
    anchors: Float[Array, "anchors dim"]
    runs: masks.Runs
    index: Int[Array, "anchors"]


def over_anchors(
    rule: rules.Rule, compared: Compared, knobs: dict[str, Any], tile_size: int | None
) -> rules.Sums:
    """The sums over the triplets of all anchors.

    Args:
      rule: the metric, the miner and the penalty.
      compared: the anchors, on whose places in the global batch random draws depend, and what
        they are compared with.
      knobs: `margin` and other numbers of the penalty, which the gradient reaches too.
      tile_size: anchors at a time; None chooses.

    Returns:
      The sums, of which `penalty` is differentiable in anchors, candidates and knobs.
    """
    inputs = (compared.anchors, compared.candidates, knobs)
    sums, gradient = _sweep(rule, *_without_gradient(compared, knobs), tile_size)
    return jax.lax.stop_gradient(sums)._replace(
        penalty=_with_gradient(sums.penalty, inputs, gradient)
    )


def over_anchors_at_once(
    rule: rules.OfAnchor, compared: Compared, knobs: dict[str, Any], tile_size: int | None
) -> rules.TermSums:
    """The sums of a loss of all of an anchor's distances; `value` is differentiable.

    Arguments are those of `over_anchors`.
    """
    inputs = (compared.anchors, compared.candidates, knobs)
    sums, gradient = _in_tiles(rule, *_without_gradient(compared, knobs), tile_size)
    return jax.lax.stop_gradient(sums)._replace(value=_with_gradient(sums.value, inputs, gradient))


def mine(
    rule: rules.Rule,
    anchors: Float[Array, "anchors dim"],
    candidates: Float[Array, "candidates dim"],
    runs: masks.Runs,
    index: Int[Array, "anchors"],
    width: int,
) -> tuple[rules.Seen, Triplets]:
    """What the miner sees of all anchors at once, and its answer, for `width` positives each."""
    columns = candidates.T
    measured = near.measured(rule.metric, anchors, candidates, columns, runs.itself)
    seen = rules.seen(near.finished(rule.metric, measured), width, runs)
    return seen, rules.mine(rule, seen, columns, index)


@jax.custom_vjp
def _with_gradient(value, inputs, gradient):
    """`value`, whose gradient in `inputs` is `gradient`. Where no gradient is asked for, the
    compiler drops everything that leads to it."""
    del inputs, gradient
    return value


def _keep_gradient(value, inputs, gradient):
    del inputs
    return value, gradient


def _scale_gradient(gradient, cotangent):
    # The value itself may depend on numbers that a miner or a penalty closes over.
    return cotangent, jax.tree.map(lambda g: cotangent * g, gradient), None


_with_gradient.defvjp(_keep_gradient, _scale_gradient)


def _without_gradient(compared, knobs):
    rows, knobs = jax.lax.stop_gradient(((compared.anchors, compared.candidates), knobs))
    return compared._replace(anchors=rows[0], candidates=rows[1]), knobs


def _sweep(rule, compared, knobs, tile_size):
    """In squares where they suit and no anchor has too many positives for them, else in tiles."""

    def in_tiles():
        return _in_tiles(rule, compared, knobs, tile_size)

    def in_squares():
        sums, gradient = squares.sweep(rule, compared.candidates, knobs, compared.runs)
        return sums, (jnp.zeros_like(compared.anchors), *gradient)

    if tile_size or not compared.symmetric or not squares.suit(rule, compared.candidates):
        return in_tiles()
    most = batching.largest_of_batch(jnp.max(compared.runs.positives))
    return jax.lax.cond(most <= squares.WIDTH, in_squares, in_tiles)


def _in_tiles(rule, compared, knobs, tile_size):
    anchors, candidates, runs, index, _ = compared
    rows = len(anchors)
    at_once = isinstance(rule, rules.OfAnchor)
    all_pairs = at_once or rules.answers_all_pairs(rule.mine, candidates.shape)
    sizes = _SIZES_OF_ALL_PAIRS if all_pairs else _SIZES_OF_PICKS
    sizes = sizes.get(jax.default_backend(), _SIZES_ELSEWHERE)
    widths = masks.widths(len(candidates))
    # Without a matrix product there is a number for each coordinate of each pair, too.
    coordinates = 1 if rule.metric.by_product else candidates.shape[1]
    if tile_size is None:
        tile_size = max(64, sizes.distances // max(1, coordinates * len(candidates)))
    tile_size = min(tile_size, rows)
    if at_once and runs.shown is None:  # rows that only fill up a part should see nobody
        runs = runs._replace(shown=jnp.full(rows, len(candidates)))
    # Neighbours in label have classes of one size, and the tile the width that these need.
    order = jnp.argsort(runs.start)
    tile = jax.tree.map(lambda x: x[order], _Tile(anchors, runs, index))
    columns = candidates.T

    def of_tile(carry, tile):
        """Measures a tile, and mines it by as many places for positives as it needs."""

        def measure(anchors, columns):
            return near.measured(rule.metric, anchors, candidates, columns, tile.runs.itself)

        most = batching.largest_of_batch(jnp.max(tile.runs.positives))
        branch = jnp.sum(jnp.asarray(widths) < most)
        branches = [functools.partial(of_width, width) for width in widths]
        if not all_pairs:
            in_parts = sizes.part < sizes.distances
            matrix = () if in_parts else (measure(tile.anchors, columns),)
            return jax.lax.switch(branch, branches, carry, tile, *matrix)
        matrix, pull = jax.vjp(measure, tile.anchors, columns)
        carry, slopes = jax.lax.switch(branch, branches, carry, tile, matrix)
        sums, (of_columns, of_knobs) = carry
        of_anchors, more = pull(slopes)
        return (sums, (of_columns + more, of_knobs)), jax.lax.stop_gradient(of_anchors)

    def of_width(width, carry, tile, *matrix):
        of_anchor = max(1 if at_once else width, coordinates) * len(candidates)
        most = max(1, sizes.triplets // of_anchor)
        if all_pairs:
            step = functools.partial(_all_pairs, rule, width, columns, knobs)
        else:
            step = functools.partial(_picks, rule, width, candidates, columns, knobs)
            # A part's work should exceed that of adding its gradient to that of all candidates.
            least = -(-2 * candidates.shape[1] // width)
            most = max(most, min(least, _MOST_TRIPLETS // of_anchor))
        most = min(most, max(64, sizes.part // (coordinates * len(candidates))))
        return _scan(step, carry, tile, most, *matrix)

    no_gradient = jax.tree.map(jnp.zeros_like, (columns if all_pairs else candidates, knobs))
    (sums, (of_candidates, of_knobs)), of_anchors = _scan(
        of_tile, (rules.nothing_yet(rule), no_gradient), tile, tile_size
    )
    if all_pairs:
        of_candidates = of_candidates.T
    of_anchors = jnp.zeros_like(of_anchors).at[order].set(of_anchors, unique_indices=True)
    return sums, (of_anchors, of_candidates, of_knobs)


def _scan(step, carry, tile, size, *more):
    """`step(carry, tile, *more)` over parts of `size` anchors; the last is filled with nobody."""
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

    runs = jax.tree.map(cut, tile.runs)._replace(itself=cut(tile.runs.itself, -1))
    tiles = _Tile(cut(tile.anchors), runs, cut(tile.index))
    carry, of_anchors = jax.lax.scan(
        lambda carry, x: step(carry, *x), carry, (tiles, *map(cut, more))
    )
    return carry, of_anchors.reshape(-1, of_anchors.shape[-1])[:rows]


def _all_pairs(rule, width, columns, knobs, carry, tile, measured):
    """Adds a part of a tile of a rule that looks at whole rows of distances.

    Returns the slopes of its sum in `measured`, too.
    """
    distances, pull_measured = jax.vjp(functools.partial(near.finished, rule.metric), measured)
    seen = rules.seen(distances, width, tile.runs)

    def value(to_positives, to_negatives, columns, knobs):
        seen_here = seen._replace(to_positives=to_positives, to_negatives=to_negatives)
        if isinstance(rule, rules.OfAnchor):
            sums = rules.add_up_terms(rule, seen_here, knobs)
            return sums.value, sums
        mined = rules.mine(rule, seen_here, columns, tile.index)

        def d_pn():
            return rules.positives_to_negatives(rule.metric, seen.places, columns)

        sums = rules.add_up(rule.penalize, mined, d_pn, knobs)
        return sums.penalty, sums

    inputs = (seen.to_positives, seen.to_negatives, columns, knobs)
    _, pull, sums = jax.vjp(value, *inputs, has_aux=True)
    of_positives, of_negatives, *gradient = pull(jnp.float32(1))
    # Few numbers are added in place; a gradient of the cutting out would be a matrix.
    rows = jnp.arange(len(seen.places))[:, None]
    slopes = of_negatives.at[rows, seen.places].add(of_positives, mode="drop")
    carry = jax.tree.map(jnp.add, carry, (sums, tuple(gradient)))
    return carry, jax.lax.stop_gradient(pull_measured(slopes)[0])


def _picks(rule, width, candidates, columns, knobs, carry, tile, measured=None):
    """Adds a part of a tile of a miner that answers with picks."""
    if measured is None:
        measured = near.measured(rule.metric, tile.anchors, candidates, columns, tile.runs.itself)
    seen = rules.seen(near.finished(rule.metric, measured), width, tile.runs)
    mined = rules.mine(rule, seen, columns, tile.index)
    d_ap, d_an, weight = jnp.broadcast_arrays(*mined)
    flat = (len(tile.index), -1)
    d_ap, d_an, weight = d_ap.reshape(flat), d_an.reshape(flat), weight.reshape(flat)
    which, is_known = _whose(d_ap, seen.to_positives, seen.is_positive)
    which = _each_its_own(which, d_ap, seen.to_positives, seen.is_positive)
    positive = jnp.take_along_axis(seen.places, which, axis=1, mode="clip")
    negative, is_known_too = _whose(d_an, seen.to_negatives, seen.is_negative)
    is_known = (is_known & is_known_too) | (weight == 0)

    def value(anchors, positives, negatives, knobs):
        def between(a, b):
            return rule.metric.finish(rule.metric.between(a, b))

        d_ap = jnp.where(is_known, between(anchors[:, None], positives), jnp.nan)
        d_an = between(anchors[:, None], negatives)

        def d_pn():
            return between(positives, negatives)

        sums = rules.add_up(rule.penalize, Triplets(d_ap, d_an, weight), d_pn, knobs)
        return sums.penalty, sums

    positives = candidates.at[positive].get(mode="clip")
    negatives = candidates.at[negative].get(mode="clip")
    _, pull, sums = jax.vjp(value, tile.anchors, positives, negatives, knobs, has_aux=True)
    of_anchors, of_positives, of_negatives, more_of_knobs = pull(jnp.float32(1))
    total, (of_candidates, of_knobs) = carry
    of_candidates = of_candidates.at[positive].add(of_positives, mode="drop")
    of_candidates = of_candidates.at[negative].add(of_negatives, mode="drop")
    total, of_knobs = jax.tree.map(jnp.add, (total, of_knobs), (sums, more_of_knobs))
    return (total, (of_candidates, of_knobs)), jax.lax.stop_gradient(of_anchors)


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
