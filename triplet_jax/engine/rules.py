"""What a rule makes of the distances of some anchors: triplets, and the sums of their penalties."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from triplet_jax.distances import Metric
from triplet_jax.engine import label_runs
from triplet_jax.mining import Triplets

# What a miner and a penalty are given if they name it; all other keywords are knobs.
GIVEN_TO_MINERS = ("key", "dim", "positives_to_negatives")
GIVEN_TO_PENALTIES = ("d_pn",)

# Positives that are added up one by one: on a CPU, XLA's sum over an axis in the middle takes
# several times as long.
_FEW = 8


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
    """Of the distances that the penalty is of."""
    mine: Callable
    """A miner; one that names `key`, `dim` or `positives_to_negatives` is given it."""
    penalize: Callable
    """`(d_ap, d_an, margin, **knobs)`; one that names `d_pn` is given it."""
    key: PRNGKeyArray | None
    mining_metric: Metric | None = None
    """Of the distances that the miner sees; None for the metric of the penalty."""

    @property
    def mined_by(self) -> Metric:
        """The metric of the distances that the miner sees."""
        return self.metric if self.mining_metric is None else self.mining_metric


def nothing_yet(rule):
    """The sums before the first tile."""
    zero = jnp.zeros((), jnp.float32)
    if isinstance(rule, OfAnchor):
        return TermSums(zero, jnp.zeros_like(rule.shares), zero, zero)
    return Sums(*[zero] * len(Sums._fields))


def asked(function, offered):
    """Those of the offered arguments that a miner or a penalty names."""
    named = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in named}


def answers_all_pairs(mine, shape):
    """Whether the miner's answer is a matrix, found out without computing anything."""
    candidates, dim = shape

    def row(kind, *shape):
        return jax.ShapeDtypeStruct(shape, kind)

    offered = {
        "key": jax.random.key(0),
        "positives_to_negatives": row(jnp.float32, candidates, candidates),
    }
    answer = jax.eval_shape(
        functools.partial(mine, **asked(mine, {"dim": dim})),
        row(jnp.float32, candidates),
        row(bool, candidates),
        row(jnp.float32, candidates),
        row(bool, candidates),
        **asked(mine, offered),
    )
    return max(x.ndim for x in answer) == 2


class Seen(NamedTuple):
    """What the miner sees of a tile, and where the positives stand."""

    to_positives: Float[Array, "anchors positives"]
    is_positive: Bool[Array, "anchors positives"]
    to_negatives: Float[Array, "anchors candidates"]
    is_negative: Bool[Array, "anchors candidates"]
    places: Int[Array, "anchors positives"]


def seen(distances, width, runs) -> Seen:
    """The same cut out of distances to all candidates, in `width` places for positives."""
    places, is_positive = label_runs.positive_places(runs, width)
    to_positives = jnp.take_along_axis(distances, places, axis=1, mode="clip")
    is_negative = label_runs.negatives(runs, distances.shape[1])
    return Seen(to_positives, is_positive, distances, is_negative, places)


def positives_to_negatives(metric, places, columns):
    """From every positive of every anchor to every candidate."""
    positives = columns.T.at[places.reshape(-1)].get(mode="clip")
    distances = metric.finish(metric.pairwise(positives, columns))
    return distances.reshape(*places.shape, -1)


def mine(rule, seen, columns, index) -> Triplets:
    """The miner, over the anchors of a tile."""
    offered = {"key": None, "dim": columns.shape[0], "positives_to_negatives": None}
    wanted = asked(rule.mine, offered)
    each = {}
    if "key" in wanted:
        each["key"] = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rule.key, index)
    if "positives_to_negatives" in wanted:
        each["positives_to_negatives"] = positives_to_negatives(rule.mined_by, seen.places, columns)
    same = {name: value for name, value in wanted.items() if name == "dim"}

    def of_anchor(seen, each):
        return of_one_rank(rule.mine(*seen[:4], **each, **same))

    return jax.vmap(of_anchor)(seen, each)


def of_one_rank(mined) -> Triplets:
    """One anchor's triplets, which broadcast under a leading axis of anchors too."""
    rank = max(x.ndim for x in mined)
    return Triplets(*(x.reshape((1,) * (rank - x.ndim) + x.shape) for x in mined))


def add_up(penalize, mined, d_pn, knobs) -> Sums:
    """The sums over a tile's triplets; `d_pn` measures what only some penalties ask for."""
    shape = jnp.broadcast_shapes(*(x.shape for x in mined))
    rest = {name: value for name, value in knobs.items() if name != "margin"}
    rest |= {name: measure() for name, measure in asked(penalize, {"d_pn": d_pn}).items()}
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


def add_up_terms(rule, seen, knobs) -> TermSums:
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
