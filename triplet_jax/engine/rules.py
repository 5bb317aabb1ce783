"""What a loss does with an anchor's distances: mine triplets and penalise them, or use them all."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from triplet_jax.distances import Metric

# What a miner and a penalty are given if they name it; all other keywords are knobs.
GIVEN_TO_MINERS = ("key", "dim", "positives_to_negatives")
GIVEN_TO_PENALTIES = ("d_pn",)

Knobs = dict[str, Float[Array, "..."]]
"""Numbers of a penalty or a loss by name, such as `margin`, which the gradient reaches too."""


class TripletRule(NamedTuple):
    """How triplets are found and what they cost."""

    metric: Metric
    """Of the distances that the penalty takes."""
    mine: Callable
    """A miner. If it names `key`, `dim` or `positives_to_negatives`, it is given them."""
    penalize: Callable
    """`(d_ap, d_an, margin, **knobs)`. If it names `d_pn`, it is given that."""
    key: PRNGKeyArray | None
    mining_metric: Metric | None = None
    """Of the distances that the miner sees; None for the metric of the penalty."""

    @property
    def mined_by(self) -> Metric:
        """The metric of the distances that the miner sees."""
        return self.metric if self.mining_metric is None else self.mining_metric


class AnchorRule(NamedTuple):
    """A loss that is a function of all of an anchor's distances, as in `contrastive`."""

    metric: Metric
    measure: Callable
    """From the four arrays that a miner sees, and knobs, to `terms.Terms`."""
    shares: Float[Array, "terms"]
    """The factor of each term in the sum. One gradient of that sum then serves all terms."""


Rule = TripletRule | AnchorRule


def asked(function: Callable, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a function names."""
    named = inspect.signature(function).parameters
    return {name: value for name, value in offered.items() if name in named}


def answers_all_pairs(mine: Callable, candidates: int, dim: int) -> bool:
    """Whether a miner answers with all pairs."""
    mined = answer(functools.partial(mine, **asked(mine, {"dim": dim})), candidates, candidates)
    return max(x.ndim for x in mined) == 2


def answer(mine: Callable, positives: int, negatives: int) -> Any:
    """The shapes and types of the triplets that a miner answers with."""

    def array(kind, *shape):
        return jax.ShapeDtypeStruct(shape, kind)

    offered = {
        "key": jax.random.key(0),
        "positives_to_negatives": array(jnp.float32, positives, negatives),
    }
    return jax.eval_shape(
        mine,
        array(jnp.float32, positives),
        array(bool, positives),
        array(jnp.float32, negatives),
        array(bool, negatives),
        **asked(mine, offered),
    )
