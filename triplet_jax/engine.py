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
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from triplet_jax import masks
from triplet_jax.distances import Metric
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
# Positives that are added up one by one: on a CPU, XLA's sum over an axis in the middle takes
# several times as long.
_FEW = 8

# What a miner and a penalty are given if they name it; all other keywords are knobs.
GIVEN_TO_MINERS = ("key", "dim", "positives_to_negatives")
GIVEN_TO_PENALTIES = ("d_pn",)


class Sums(NamedTuple):
    """What is added up over anchors, tiles and devices, as float32."""

    penalty: Float[Array, ""]
    valid_weight: Float[Array, ""]
    active_weight: Float[Array, ""]
    valid: Float[Array, ""]
    active: Float[Array, ""]
    d_ap: Float[Array, ""]
    d_an: Float[Array, ""]


class OfAnchor(NamedTuple):
    """A loss that is a function of one anchor's distances, as in `contrastive`."""

    metric: Metric
    measure: Callable
    """From what a miner is given, and knobs, to `contrastive.Terms`."""
    shares: Float[Array, "terms"]
    """What each term counts in the sum: the gradient of many costs what that of one does."""


class TermSums(NamedTuple):
    """`contrastive.Terms`, added up over anchors, tiles and devices, with the distances."""

    value: Float[Array, ""]
    """Of all terms by their shares."""
    weight: Float[Array, "terms"]
    d_ap: Float[Array, ""]
    d_an: Float[Array, ""]


class Rule(NamedTuple):
    """How triplets are found and what they cost."""

    metric: Metric
    mine: Callable
    """A miner; one that names `key`, `dim` or `positives_to_negatives` is given it."""
    penalize: Callable
    """`(d_ap, d_an, margin, **knobs)`; one that names `d_pn` is given it."""
    key: PRNGKeyArray | None


class _Tile(NamedTuple):
    anchors: Float[Array, "anchors dim"]
    runs: masks.Runs
    index: Int[Array, "anchors"]


def over_anchors(
    rule: Rule,
    anchors: Float[Array, "batch dim"],
    candidates: Float[Array, "candidates dim"],
    runs: masks.Runs,
    index: Int[Array, "batch"],
    knobs: dict[str, Any],
    tile_size: int | None,
) -> Sums:
    """The sums over the triplets of all anchors.

    Args:
      rule: the metric, the miner and the penalty.
      anchors: prepared by the metric.
      candidates: likewise, sorted by label.
      runs: where each anchor's positives are.
      index: the anchors' places in the global batch; random draws depend on them.
      knobs: `margin` and other numbers of the penalty, which the gradient reaches too.
      tile_size: anchors at a time; None chooses.

    Returns:
      The sums, of which `penalty` is differentiable in anchors, candidates and knobs.
    """
    inputs = (anchors, candidates, knobs)
    sums, gradient = _sweep(rule, *jax.lax.stop_gradient(inputs), runs, index, tile_size)
    return jax.lax.stop_gradient(sums)._replace(
        penalty=_with_gradient(sums.penalty, inputs, gradient)
    )


def over_anchors_at_once(
    rule: OfAnchor,
    anchors: Float[Array, "batch dim"],
    candidates: Float[Array, "candidates dim"],
    runs: masks.Runs,
    index: Int[Array, "batch"],
    knobs: dict[str, Any],
    tile_size: int | None,
) -> TermSums:
    """The sums of a loss of all of an anchor's distances; `value` is differentiable.

    Arguments are those of `over_anchors`.
    """
    inputs = (anchors, candidates, knobs)
    sums, gradient = _sweep(rule, *jax.lax.stop_gradient(inputs), runs, index, tile_size)
    return jax.lax.stop_gradient(sums)._replace(value=_with_gradient(sums.value, inputs, gradient))


def mine(
    rule: Rule,
    anchors: Float[Array, "anchors dim"],
    candidates: Float[Array, "candidates dim"],
    runs: masks.Runs,
    index: Int[Array, "anchors"],
    width: int,
) -> tuple["Seen", Triplets]:
    """What the miner sees of all anchors at once, and its answer, for `width` positives each."""
    columns = candidates.T
    measured = _measured(rule.metric, anchors, candidates, columns, runs.itself)
    seen = _seen(_finished(rule.metric, measured), width, runs)
    return seen, _mine(rule, seen, columns, index)


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


def _sweep(rule, anchors, candidates, knobs, runs, index, tile_size):
    rows = len(anchors)
    at_once = isinstance(rule, OfAnchor)
    all_pairs = at_once or _answers_all_pairs(rule.mine, candidates.shape)
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
            return _measured(rule.metric, anchors, candidates, columns, tile.runs.itself)

        most = _largest_of_batch(jnp.max(tile.runs.positives))
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
        of_tile, (_nothing_yet(rule), no_gradient), tile, tile_size
    )
    if all_pairs:
        of_candidates = of_candidates.T
    of_anchors = jnp.zeros_like(of_anchors).at[order].set(of_anchors, unique_indices=True)
    return sums, (of_anchors, of_candidates, of_knobs)


def _nothing_yet(rule):
    """The sums before the first tile."""
    zero = jnp.zeros((), jnp.float32)
    if isinstance(rule, OfAnchor):
        return TermSums(zero, jnp.zeros_like(rule.shares), zero, zero)
    return Sums(*[zero] * len(Sums._fields))


@jax.custom_batching.custom_vmap
def _largest_of_batch(x):
    """`x`, or its maximum over everything that is batched together.

    Where whole runs are batched by `vmap`, a branch that differs among them would have to be
    taken on all sides. What suffices for one with most suffices for all.
    """
    return x


@_largest_of_batch.def_vmap
def _over_batch(axis_size, in_batched, x):
    del axis_size
    return (_largest_of_batch(jnp.max(x, axis=0)) if in_batched[0] else x), False


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


def _asked(function, offered):
    """Those of the offered arguments that a miner or a penalty names."""
    named = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in named}


def _answers_all_pairs(mine, shape):
    """Whether the miner's answer is a matrix, found out without computing anything."""
    candidates, dim = shape

    def row(kind, *shape):
        return jax.ShapeDtypeStruct(shape, kind)

    offered = {
        "key": jax.random.key(0),
        "positives_to_negatives": row(jnp.float32, candidates, candidates),
    }
    answer = jax.eval_shape(
        functools.partial(mine, **_asked(mine, {"dim": dim})),
        row(jnp.float32, candidates),
        row(bool, candidates),
        row(jnp.float32, candidates),
        row(bool, candidates),
        **_asked(mine, offered),
    )
    return max(x.ndim for x in answer) == 2


class Seen(NamedTuple):
    """What the miner sees of a tile, and where the positives stand."""

    to_positives: Float[Array, "anchors positives"]
    is_positive: Bool[Array, "anchors positives"]
    to_negatives: Float[Array, "anchors candidates"]
    is_negative: Bool[Array, "anchors candidates"]
    places: Int[Array, "anchors positives"]


def _seen(distances, width, runs):
    places, is_positive = masks.positive_places(runs, width)
    to_positives = jnp.take_along_axis(distances, places, axis=1, mode="clip")
    is_negative = masks.negatives(runs, distances.shape[1])
    return Seen(to_positives, is_positive, distances, is_negative, places)


def _measured(metric, anchors, candidates, columns, itself):
    """A tile of distances not yet finished, the smallest of them measured as differences."""
    fast = metric.pairwise(anchors, columns)
    if metric.blur is None:
        return fast
    exact = _exact_where_near(
        metric, *jax.lax.stop_gradient((anchors, candidates, columns, fast)), itself
    )
    return _with_slope_of(exact, fast)


def _finished(metric, measured):
    return written_once(metric.finish(measured))


@jax.custom_jvp
def _with_slope_of(value, other):
    """`value`, which changes as `other` does."""
    del other
    return value


@_with_slope_of.defjvp
def _slope_of_other(primals, tangents):
    return primals[0], tangents[1]


def _exact_where_near(metric, anchors, candidates, columns, fast, itself):
    # An anchor is always near itself, which does not matter: it is nobody's pick.
    is_itself = jnp.arange(columns.shape[1]) == itself[:, None]
    nearest = jnp.min(jnp.where(is_itself, jnp.inf, fast), axis=1)
    near = nearest < metric.blur(anchors, columns)
    at_a_time = min(16 if jax.default_backend() == "cpu" else 256, len(near))

    def more(state):
        _, near = state
        return _largest_of_batch(jnp.any(near))

    def measure_some(state):
        distances, near = state
        rows = jnp.nonzero(near, size=at_a_time, fill_value=len(near))[0]
        exact = metric.between(anchors.at[rows].get(mode="clip")[:, None], candidates)
        return distances.at[rows].set(exact, mode="drop"), near.at[rows].set(False, mode="drop")

    # In place, and nothing to be done as a rule.
    return jax.lax.while_loop(more, measure_some, (fast, near))[0]


def _positives_to_negatives(metric, places, columns):
    """From every positive of every anchor to every candidate."""
    positives = columns.T.at[places.reshape(-1)].get(mode="clip")
    distances = metric.finish(metric.pairwise(positives, columns))
    return distances.reshape(*places.shape, -1)


def _mine(rule, seen, columns, index):
    """The miner, over the anchors of a tile."""
    offered = {"key": None, "dim": columns.shape[0], "positives_to_negatives": None}
    asked = _asked(rule.mine, offered)
    each = {}
    if "key" in asked:
        each["key"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rule.key, index)
    if "positives_to_negatives" in asked:
        each["positives_to_negatives"] = _positives_to_negatives(rule.metric, seen.places, columns)
    same = {name: value for name, value in asked.items() if name == "dim"}

    def one(seen, each):
        mined = rule.mine(*seen[:4], **each, **same)
        # Of one rank, so that they broadcast under a leading axis of anchors too.
        rank = max(x.ndim for x in mined)
        return Triplets(*(x.reshape((1,) * (rank - x.ndim) + x.shape) for x in mined))

    return jax.vmap(one)(seen, each)


def _all_pairs(rule, width, columns, knobs, carry, tile, measured):
    """Adds a part of a tile of a rule that looks at whole rows of distances.

    Returns the slopes of its sum in `measured`, too.
    """
    distances, pull_measured = jax.vjp(functools.partial(_finished, rule.metric), measured)
    seen = _seen(distances, width, tile.runs)

    def value(to_positives, to_negatives, columns, knobs):
        seen_here = seen._replace(to_positives=to_positives, to_negatives=to_negatives)
        if isinstance(rule, OfAnchor):
            sums = _add_up_terms(rule, seen_here, knobs)
            return sums.value, sums
        mined = _mine(rule, seen_here, columns, tile.index)

        def d_pn():
            return _positives_to_negatives(rule.metric, seen.places, columns)

        sums = _add_up(rule.penalize, mined, d_pn, knobs)
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
        measured = _measured(rule.metric, tile.anchors, candidates, columns, tile.runs.itself)
    seen = _seen(_finished(rule.metric, measured), width, tile.runs)
    mined = _mine(rule, seen, columns, tile.index)
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

        sums = _add_up(rule.penalize, Triplets(d_ap, d_an, weight), d_pn, knobs)
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


def _add_up(penalize, mined, d_pn, knobs) -> Sums:
    """The sums over a tile's triplets; `d_pn` measures what only some penalties ask for."""
    shape = jnp.broadcast_shapes(*(x.shape for x in mined))
    rest = {name: value for name, value in knobs.items() if name != "margin"}
    rest |= {name: measure() for name, measure in _asked(penalize, {"d_pn": d_pn}).items()}
    d_ap, d_an = _spread(mined.d_ap, shape), _spread(mined.d_an, shape)
    value = penalize(d_ap, d_an, knobs["margin"], **rest)
    weight = jax.lax.stop_gradient(mined.weight)
    valid = jnp.broadcast_to(weight if weight.dtype == bool else weight > 0, shape)
    value = jnp.where(valid, value, 0.0)
    active = value != 0

    def total(x):
        return jnp.sum(jnp.sum(x.astype(jnp.float32), axis=-1))

    number = valid.astype(jnp.float32)
    valid_of_rows = jnp.sum(number, axis=-1)
    counted = {"valid": jnp.sum(valid_of_rows), "active": total(active)}
    if mined.d_ap.shape[-1] == 1:
        sum_d_ap = jnp.sum(jnp.where(valid_of_rows > 0, valid_of_rows * mined.d_ap[..., 0], 0.0))
    else:
        sum_d_ap = total(jnp.where(valid, mined.d_ap, 0.0))
    if weight.dtype == bool:
        weights = {"valid_weight": counted["valid"], "active_weight": counted["active"]}
        penalty = total(value)
    else:
        weight = weight.astype(value.dtype)
        weights = {
            "valid_weight": total(jnp.where(valid, weight, 0.0)),
            "active_weight": total(jnp.where(active, weight, 0.0)),
        }
        penalty = total(weight * value)
    if len(shape) == 3 and mined.d_an.shape[1] == 1:
        # A product, which on a CPU is faster than a sum. Where there is no triplet it may be inf.
        d_an = jnp.where(jnp.isfinite(mined.d_an[:, 0]), mined.d_an[:, 0], 0.0)
        highest = jax.lax.Precision.HIGHEST
        sum_d_an = jnp.sum(jnp.einsum("apn,an->ap", number, d_an, precision=highest))
    else:
        sum_d_an = total(jnp.where(valid, mined.d_an, 0.0))
    return Sums(
        penalty=penalty,
        d_ap=sum_d_ap,
        d_an=sum_d_an,
        **counted,
        **weights,
    )


def _add_up_terms(rule, seen, knobs) -> TermSums:
    """The sums over a tile's anchors."""
    terms = jax.vmap(functools.partial(rule.measure, **knobs))(*seen[:4])
    sees = jnp.any(seen.is_positive, axis=1) | jnp.any(seen.is_negative, axis=1)
    terms = jax.tree.map(lambda x: jnp.where(sees[:, None], x, 0.0), terms)
    far = jnp.where(seen.is_negative, jax.lax.stop_gradient(seen.to_negatives), 0.0)
    return TermSums(
        value=jnp.sum(rule.shares * jnp.sum(terms.value.astype(jnp.float32), axis=0)),
        weight=jnp.sum(jax.lax.stop_gradient(terms.weight), axis=0),
        d_ap=jnp.sum(jnp.where(seen.is_positive, seen.to_positives, 0.0)),
        d_an=jnp.sum(jnp.sum(far, axis=1)),
    )


def _is_few(shape):
    return len(shape) == 3 and 1 < shape[1] <= _FEW


def _spread(x, shape):
    """`broadcast_to`, whose gradient adds up a few positives one by one."""
    if not _is_few(shape) or x.shape[1] > 1:
        return jnp.broadcast_to(x, shape)
    row = jnp.broadcast_to(x[:, 0], (shape[0], shape[2]))
    return jnp.stack([row] * shape[1], axis=1)
