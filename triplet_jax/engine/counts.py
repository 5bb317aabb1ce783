"""The sums of the hinge over all pairs of positives and negatives, from counts of triplets.

The hinge is linear wherever it is not 0, so that its sum follows from how many active triplets each
positive and each negative of an anchor has:

    sum of max(0, d_ap - d_an + margin) = sum_p active_p (d_ap + margin) - sum_n active_n d_an

These counts are the slopes of the sum, too. So triplets are only counted, once for each positive
and once for each negative. On a CPU that takes half the time of penalties and their derivatives.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from triplet_jax import mining, penalties
from triplet_jax.devices import collectives
from triplet_jax.engine import rules, sums
from triplet_jax.xla import storing

# Two counts below this share a float32, which holds whole numbers up to its square.
_MOST = 2**12


def suits(rule: rules.Rule, width: int, candidates: int) -> bool:
    """Whether counts of a rule's triplets take the place of general sums; never off a CPU."""
    if (
        jax.default_backend() != "cpu"
        or not isinstance(rule, rules.TripletRule)
        or rule.penalize is not penalties.hinge
        or rule.mining_metric is not None
        or not (mining.judges_triplets(rule.mine) or mining.choice(rule.mine))
        or width >= _MOST
    ):
        return False
    mined = rules.answer(rule.mine, width, candidates)
    pairs = [(width, 1), (1, candidates), (width, candidates)]
    return [x.shape for x in mined] == pairs and mined.weight.dtype == bool


def of_pairs(
    mine: Callable,
    to_positives: Float[mining.ToPositives, "anchors"],
    is_positive: Bool[mining.IsPositive, "anchors"],
    to_negatives: Float[mining.ToNegatives, "anchors"],
    is_negative: Bool[mining.IsNegative, "anchors"],
    margin: Float[Array, ""],
) -> sums.TripletSums:
    """The sums over the triplets of some anchors, where `suits` allows it.

    Args:
      mine: the miner, which is given the next four arrays of each anchor.
      margin: of the hinge.
    """
    arrays = (to_positives, is_positive, to_negatives, is_negative)
    if choose := mining.choice(mine):
        chosen = storing.behind_a_barrier(jax.vmap(choose)(*jax.lax.stop_gradient(arrays)))
        arrays = (to_positives, chosen[0], to_negatives, chosen[1])
        mine = mining.batch_all
    mine = jax.vmap(mine)
    d_ap, d_an = (x.reshape(len(x), -1) for x in mine(*arrays)[:2])
    number = functools.partial(_number, mine, jax.lax.stop_gradient(margin))
    positives, negatives = jax.lax.stop_gradient((arrays[:2], arrays[2:]))
    valid_p, active_p = _of_positives(number, positives, negatives)
    valid_n, active_n = _of_negatives(number, positives, negatives)

    # The two sums nearly cancel, and would lose digits. So distances count from the largest active
    # one of each anchor, by which both sums change alike.
    near = jnp.max(d_ap, axis=1, keepdims=True, where=active_p > 0, initial=-jnp.inf)
    near = jax.lax.stop_gradient(jnp.where(jnp.isfinite(near), near, 0.0))
    valid, active = (jnp.sum(jnp.sum(x, axis=1)) for x in (valid_p, active_p))
    found = sums.TripletSums(
        penalty=_times(active_p, d_ap - near + margin) - _times(active_n, d_an - near),
        valid_weight=valid,
        active_weight=active,
        valid=valid,
        active=active,
        d_ap=_times(valid_p, d_ap),
        d_an=_times(valid_n, d_an),
    )
    return jax.tree.map(lambda x: x.astype(jnp.float32), found)


_Counts = tuple[Float[Array, "anchors _"], Float[Array, "anchors _"]]
"""Of valid and of active triplets."""
_Distances = tuple[Float[Array, "anchors _"], Bool[Array, "anchors _"]]
"""To positives or to negatives, and which of them count."""


def _of_positives(number: Callable, positives: _Distances, negatives: _Distances) -> _Counts:
    """The counts of each positive."""
    candidates = negatives[0].shape[1]
    pieces = -(-candidates // (_MOST - 1))
    size = -(-candidates // pieces)
    found = []
    for start in range(0, candidates, size):
        numbers = number(*positives, *(x[:, start : start + size] for x in negatives))
        # A loop of its own, or XLA goes over one number at a time.
        found.append(_counts(storing.behind_a_barrier(jnp.sum(numbers, axis=2))))
    return jax.tree.map(lambda *x: functools.reduce(jnp.add, x), *found)


def _of_negatives(number: Callable, positives: _Distances, negatives: _Distances) -> _Counts:
    """The counts of each negative, one positive after the other."""

    def add(total, positive):
        return total + number(*positive, *negatives)[:, 0], None

    slots = tuple(x.T[:, :, None] for x in positives)
    nothing, _ = collectives.alike((jnp.zeros(negatives[0].shape, jnp.float32), slots))
    return _counts(jax.lax.scan(add, nothing, slots)[0])


def _number(
    mine: Callable, margin: Float[Array, ""], *arrays: Array
) -> Float[Array, "anchors positives negatives"]:
    """1 for each valid triplet, and `_MOST` more for an active one."""
    mined = mine(*arrays)
    # A gap that is not a number is active: the loss then is no number either.
    active = mined.weight & ~(mined.d_ap - mined.d_an <= -margin)
    return jnp.where(active, _MOST + 1.0, jnp.where(mined.weight, 1.0, 0.0))


def _counts(numbers: Float[Array, "anchors n"]) -> _Counts:
    """The two counts that sums of `_number` are made of."""
    active = jnp.floor(numbers / _MOST)
    return numbers - _MOST * active, active


def _times(
    count: Float[Array, "anchors n"], distances: Float[Array, "anchors n"]
) -> Float[Array, ""]:
    """The sum of distances, each as often as it counts. One that does not may be infinite."""
    return jnp.sum(jnp.sum(count * jnp.where(count > 0, distances, 0.0), axis=1))
