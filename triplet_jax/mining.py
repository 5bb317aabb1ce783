"""Miners: which triplets of one anchor count, and how much.

A miner is a pure function of one anchor:

    miner(to_positives, is_positive, to_negatives, is_negative) -> Triplets

`to_positives` are distances `[positives]`, of which those where `is_positive` is false
are padding; `to_negatives` likewise `[negatives]`. A miner that draws at random takes a
`key` by keyword as well; other keyword arguments are knobs, set by `functools.partial`.
`losses.triplet_loss` lifts a miner over a batch, over tiles of anchors and over devices.

The rules are those of the papers named in each docstring. "Semi-hard" is used for
several of them in the field; see `semi_hard` for what it means here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


class Triplets(NamedTuple):
    """The triplets of one anchor. The three broadcast against each other.

    A rule that picks one triplet returns three scalars, one that picks a negative for
    every positive three arrays `[positives]`, and one that takes all of them
    `[positives, 1]`, `[1, negatives]` and a weight `[positives, negatives]`.
    """

    d_ap: Float[Array, "..."]
    """Distance from the anchor to the positive."""
    d_an: Float[Array, "..."]
    """Distance from the anchor to the negative. Finite also where the weight is 0."""
    weight: Float[Array, "..."] | Bool[Array, "..."]
    """How much the triplet counts; 0 or False where there is none."""


def batch_all(
    to_positives: Float[Array, "positives"],
    is_positive: Bool[Array, "positives"],
    to_negatives: Float[Array, "negatives"],
    is_negative: Bool[Array, "negatives"],
) -> Triplets:
    """Every positive with every negative.

    Equation 6 of Hermans et al. 2017, "In Defense of the Triplet Loss for Person
    Re-Identification". With `average="active"` it is their "batch all, != 0".
    """
    return Triplets(
        to_positives[:, None],
        to_negatives[None, :],
        is_positive[:, None] & is_negative[None, :],
    )


def batch_hard(
    to_positives: Float[Array, "positives"],
    is_positive: Bool[Array, "positives"],
    to_negatives: Float[Array, "negatives"],
    is_negative: Bool[Array, "negatives"],
) -> Triplets:
    """The farthest positive with the nearest negative: one triplet an anchor.

    `max_p d(a, p)` and `min_n d(a, n)`: equation 5 of Hermans et al. 2017. An anchor
    without a positive or without a negative has no triplet. Where several are equally
    far, their gradient is shared among them.
    """
    d_ap = jnp.max(to_positives, where=is_positive, initial=-jnp.inf)
    d_an = jnp.min(to_negatives, where=is_negative, initial=jnp.inf)
    found = jnp.any(is_positive) & jnp.any(is_negative)
    return Triplets(jnp.where(found, d_ap, 0.0), jnp.where(found, d_an, 0.0), found)


def semi_hard(
    to_positives: Float[Array, "positives"],
    is_positive: Bool[Array, "positives"],
    to_negatives: Float[Array, "negatives"],
    is_negative: Bool[Array, "negatives"],
) -> Triplets:
    """For every positive, the nearest negative that is farther away than it.

    `min {d(a, n) : d(a, n) > d(a, p)}`, and no triplet where no negative is farther.
    After Schroff et al. 2015, "FaceNet", equation 4, who leave the choice among such
    negatives open. There is no upper bound: a negative beyond the margin has a hinge of
    zero, so that the margin acts through the penalty alone.
    """
    farther = is_negative & (to_negatives > to_positives[:, None])
    d_an = jnp.min(
        jnp.broadcast_to(to_negatives, farther.shape), where=farther, initial=jnp.inf, axis=1
    )
    found = is_positive & jnp.any(farther, axis=1)
    return Triplets(to_positives, jnp.where(found, d_an, 0.0), found)


def random(
    to_positives: Float[Array, "positives"],
    is_positive: Bool[Array, "positives"],
    to_negatives: Float[Array, "negatives"],
    is_negative: Bool[Array, "negatives"],
    *,
    key: PRNGKeyArray,
) -> Triplets:
    """For every positive, one negative drawn uniformly: no mining, the baseline.

    "Triplet (L_tri)" of Hermans et al. 2017, table 1.
    """
    numbered = jnp.cumsum(is_negative)
    drawn = jax.random.randint(key, to_positives.shape, 0, jnp.maximum(numbered[-1], 1))
    chosen = jnp.searchsorted(numbered, drawn, side="right")
    d_an = to_negatives.at[chosen].get(mode="clip")
    return Triplets(to_positives, d_an, is_positive & jnp.any(is_negative))


MINERS: dict[str, Callable[..., Triplets]] = {
    "batch_all": batch_all,
    "batch_hard": batch_hard,
    "random": random,
    "semi_hard": semi_hard,
}
