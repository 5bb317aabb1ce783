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
from jaxtyping import Array, Float, Shaped, UInt

from triplet_jax import mining, penalties
from triplet_jax.devices import collectives
from triplet_jax.engine import miner_views, rules, sums
from triplet_jax.mining import Triplets

_PIECES = 32
"""The negatives are cut into so many pieces, whose triplets are counted side by side."""
# Two counts share a number: the lower half is for valid triplets, the upper one for active ones.
_BITS = 16


def suits(rule: rules.Rule, width: int, candidates: int) -> bool:
    """Whether the triplets of a rule can be counted in place of general sums, and on a CPU."""
    if (
        jax.default_backend() != "cpu"
        or not isinstance(rule, rules.TripletRule)
        or rule.penalize is not penalties.hinge
        or rule.mining_metric is not None
        or not mining.judges_triplets(rule.mine)
        or candidates >= 2**_BITS
    ):
        return False
    mined = rules.answer(rule.mine, width, candidates)
    pairs = [(width, 1), (1, candidates), (width, candidates)]
    return [x.shape for x in mined] == pairs and mined.weight.dtype == bool


def of_view(
    rule: rules.TripletRule, view: miner_views.View, margin: Float[Array, ""]
) -> sums.TripletSums:
    """The sums over the triplets of some anchors, where `suits` allows it."""
    mine = jax.vmap(rule.mine)
    d_ap, d_an = (x.reshape(len(x), -1) for x in mine(*view[:4])[:2])
    to_positives, is_positive, to_negatives, is_negative = jax.lax.stop_gradient(view[:4])
    count = functools.partial(_count, mine, jax.lax.stop_gradient(margin))

    def for_negatives(*positive):
        return count(*positive, to_negatives, is_negative)[:, 0]

    def for_positives(*piece):
        return count(to_positives, is_positive, *piece)

    slots = (_cut(x, x.shape[1]) for x in (to_positives, is_positive))
    of_negatives = _added_up(for_negatives, tuple(slots))
    pieces = (_cut(x, _PIECES) for x in (to_negatives, is_negative))
    of_positives = jnp.sum(_added_up(for_positives, tuple(pieces)), axis=2)

    lower = 2**_BITS - 1
    active_p, active_n = of_positives >> _BITS, of_negatives >> _BITS
    valid_p, valid_n = of_positives & lower, of_negatives & lower
    # The two sums nearly cancel, and would lose digits. So distances count from the largest active
    # one of each anchor, by which both sums change alike.
    near = jnp.max(d_ap, axis=1, keepdims=True, where=active_p > 0, initial=-jnp.inf)
    near = jax.lax.stop_gradient(jnp.where(jnp.isfinite(near), near, 0.0))
    valid, active = (jnp.sum(jnp.sum(x.astype(jnp.float32), axis=1)) for x in (valid_p, active_p))
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


def _count(mine, margin, *of_anchors) -> UInt[Array, "anchors positives negatives"]:
    """1 for each valid triplet, and 2^16 more for an active one."""
    mined = Triplets(*mine(*of_anchors))
    # A gap that is not a number is active: the loss then is no number either.
    active = mined.weight & ~(mined.d_ap - mined.d_an <= -margin)
    return jnp.where(active, jnp.uint32(2**_BITS + 1), mined.weight.astype(jnp.uint32))


def _cut(x: Shaped[Array, "anchors n"], pieces: int) -> Shaped[Array, "pieces anchors size"]:
    """The columns in pieces, of which the last are filled up with zeros."""
    size = -(-x.shape[1] // pieces)
    if size > 1:
        size = -(-size // 16) * 16  # whole registers
    pieces = -(-x.shape[1] // size)
    x = jnp.pad(x, ((0, 0), (0, pieces * size - x.shape[1])))
    return x.reshape(len(x), pieces, size).swapaxes(0, 1)


def _added_up(count: Callable, pieces: tuple[Shaped[Array, "pieces anchors size"], ...]):
    """The sum of `count(*piece)` over pieces."""

    def step(total, piece):
        return total + count(*piece), None

    counted = jax.eval_shape(count, *(x[0] for x in pieces))
    nothing, _ = collectives.alike((jnp.zeros(counted.shape, counted.dtype), pieces))
    return jax.lax.scan(step, nothing, pieces)[0]


def _times(
    count: UInt[Array, "anchors n"], distances: Float[Array, "anchors n"]
) -> Float[Array, ""]:
    """The sum of distances, each as often as it counts. One that does not may be infinite."""
    distances = jnp.where(count > 0, distances, 0.0)
    return jnp.sum(jnp.sum(count.astype(distances.dtype) * distances, axis=1))
