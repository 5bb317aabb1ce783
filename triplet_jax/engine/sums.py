"""The sums that a loss is made of: their parts of some anchors, added up over tiles and devices."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from triplet_jax.engine import rules
from triplet_jax.engine.miner_views import View
from triplet_jax.mining import Triplets

# Up to this many positives are added up one by one: on a CPU, XLA takes several times as long for a
# sum over an axis in the middle.
_FEW = 8


class TripletSums(NamedTuple):
    """Sums over triplets, in float32. The gradient of the first is taken."""

    penalty: Float[Array, ""]
    """Of weighted penalties."""
    valid_weight: Float[Array, ""]
    active_weight: Float[Array, ""]
    valid: Float[Array, ""]
    active: Float[Array, ""]
    d_ap: Float[Array, ""]
    d_an: Float[Array, ""]


class TermSums(NamedTuple):
    """Sums of `terms.Terms` over anchors. The gradient of the first is taken."""

    value: Float[Array, ""]
    """Of all terms, each times its share."""
    weight: Float[Array, "terms"]
    d_ap: Float[Array, ""]
    d_an: Float[Array, ""]


Sums = TripletSums | TermSums


class Total(NamedTuple):
    """The sums over the tiles so far, and the gradient of the first of them."""

    sums: Sums
    of_candidates: Float[Array, "..."]
    """The gradient in the candidates, as rows or as columns."""
    of_knobs: rules.Knobs


def zeros(rule: rules.Rule) -> Sums:
    """The sums over no anchors."""
    zero = jnp.zeros((), jnp.float32)
    if isinstance(rule, rules.AnchorRule):
        return TermSums(zero, jnp.zeros_like(rule.shares), zero, zero)
    return TripletSums(*[zero] * len(TripletSums._fields))


def of_triplets(
    penalize: Callable,
    mined: Triplets,
    measure_d_pn: Callable[[], Float[Array, "..."]] | None,
    knobs: rules.Knobs,
) -> TripletSums:
    """The sums over the triplets of some anchors.

    Args:
      penalize: the penalty.
      mined: triplets whose arrays have a leading axis of anchors.
      measure_d_pn: measures the distances from positives to negatives, if the penalty names `d_pn`.
      knobs: `margin`, and other keywords of the penalty.
    """
    shape = jnp.broadcast_shapes(*(x.shape for x in mined))
    rest = {name: value for name, value in knobs.items() if name != "margin"}
    rest |= {
        name: measure() for name, measure in rules.asked(penalize, {"d_pn": measure_d_pn}).items()
    }
    d_ap, d_an = _spread(mined.d_ap, shape), _spread(mined.d_an, shape)
    value = penalize(d_ap, d_an, knobs["margin"], **rest)
    weight = jax.lax.stop_gradient(mined.weight)
    valid = jnp.broadcast_to(weight if weight.dtype == bool else weight > 0, shape)
    value = jnp.where(valid, value, 0.0)
    active = value != 0

    number = valid.astype(jnp.float32)
    valid_of_rows = jnp.sum(number, axis=-1)
    counted = {"valid": jnp.sum(valid_of_rows), "active": _total(active)}
    if mined.d_ap.shape[-1] == 1:
        sum_d_ap = jnp.sum(jnp.where(valid_of_rows > 0, valid_of_rows * mined.d_ap[..., 0], 0.0))
    else:
        sum_d_ap = _total(jnp.where(valid, mined.d_ap, 0.0))
    if weight.dtype == bool:
        weights = {"valid_weight": counted["valid"], "active_weight": counted["active"]}
        penalty = _total(value)
    else:
        weight = weight.astype(value.dtype)
        weights = {
            "valid_weight": _total(jnp.where(valid, weight, 0.0)),
            "active_weight": _total(jnp.where(active, weight, 0.0)),
        }
        penalty = _total(weight * value)
    if len(shape) == 3 and mined.d_an.shape[1] == 1:
        # On a CPU this product is faster than a sum. Without a triplet a distance may be infinite.
        d_an = jnp.where(jnp.isfinite(mined.d_an[:, 0]), mined.d_an[:, 0], 0.0)
        highest = jax.lax.Precision.HIGHEST
        sum_d_an = jnp.sum(jnp.einsum("apn,an->ap", number, d_an, precision=highest))
    else:
        sum_d_an = _total(jnp.where(valid, mined.d_an, 0.0))
    means = {"d_ap": sum_d_ap, "d_an": sum_d_an}
    found = TripletSums(penalty=penalty, **means, **counted, **weights)
    return jax.tree.map(lambda x: x.astype(jnp.float32), found)


def of_terms(rule: rules.AnchorRule, view: View, knobs: rules.Knobs) -> TermSums:
    """The sums over the anchors of a view. An anchor without any candidate adds nothing."""
    terms = jax.vmap(functools.partial(rule.measure, **knobs))(*view[:4])
    sees = jnp.any(view.is_positive, axis=1) | jnp.any(view.is_negative, axis=1)
    terms = jax.tree.map(lambda x: jnp.where(sees[:, None], x, 0.0), terms)
    far = jnp.where(view.is_negative, jax.lax.stop_gradient(view.to_negatives), 0.0)
    found = TermSums(
        value=jnp.sum(rule.shares * jnp.sum(terms.value.astype(jnp.float32), axis=0)),
        weight=jnp.sum(jax.lax.stop_gradient(terms.weight), axis=0),
        d_ap=jnp.sum(jnp.where(view.is_positive, view.to_positives, 0.0)),
        d_an=jnp.sum(jnp.sum(far, axis=1)),
    )
    return jax.tree.map(lambda x: x.astype(jnp.float32), found)


def _total(x: Shaped[Array, "anchors *triplets"]) -> Float[Array, ""]:
    return jnp.sum(jnp.sum(x.astype(jnp.float32), axis=-1))


def _spread(x: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """`broadcast_to`, whose gradient adds up a few positives one by one."""
    is_few = len(shape) == 3 and 1 < shape[1] <= _FEW
    if not is_few or x.shape[1] > 1:
        return jnp.broadcast_to(x, shape)
    row = jnp.broadcast_to(x[:, 0], (shape[0], shape[2]))
    return jnp.stack([row] * shape[1], axis=1)
