"""The losses of one anchor by name, and the metrics that suit them."""

from collections.abc import Callable

from triplet_jax import class_centres
from triplet_jax.contrastive import (
    false_negatives,
    pair_losses,
    proxy_losses,
    rank_losses,
    softmax_losses,
)
from triplet_jax.engine.terms import Terms

LOSSES: dict[str, Callable[..., Terms]] = {
    "arcface": proxy_losses.arcface,
    "circle": pair_losses.circle,
    "cosface": proxy_losses.cosface,
    "debiased": false_negatives.debiased,
    "fast_ap": rank_losses.fast_ap,
    "info_nce": softmax_losses.info_nce,
    "lifted": pair_losses.lifted,
    "multi_similarity": pair_losses.multi_similarity,
    "n_pairs": softmax_losses.n_pairs,
    "nca": softmax_losses.nca,
    "p2s_grad": proxy_losses.p2s_grad,
    "pairs": pair_losses.pairs,
    "pnp": rank_losses.pnp,
    "positive_aware": false_negatives.positive_aware,
    "proxy_anchor": proxy_losses.proxy_anchor,
    "ranked_list": rank_losses.ranked_list,
    "recall_at_k": rank_losses.recall_at_k,
    "sigmoid": pair_losses.sigmoid,
    "smooth_ap": rank_losses.smooth_ap,
    "sphereface": proxy_losses.sphereface,
    "supervised_contrastive": softmax_losses.supervised_contrastive,
    "tuplet_margin": softmax_losses.tuplet_margin,
}
"""The losses of one anchor, by name."""

# By distances of any kind, or by their order.
_OF_ANY_METRIC = (
    pair_losses.lifted,
    softmax_losses.nca,
    pair_losses.pairs,
    rank_losses.pnp,
    rank_losses.ranked_list,
    rank_losses.recall_at_k,
    rank_losses.smooth_ap,
)

# By angles, which inner products of any length do not give.
_OF_ANGLES = (
    proxy_losses.arcface,
    proxy_losses.cosface,
    false_negatives.debiased,
    rank_losses.fast_ap,
    proxy_losses.p2s_grad,
    proxy_losses.sphereface,
    softmax_losses.tuplet_margin,
)


def _suited(loss: Callable[..., Terms]) -> tuple[str | Callable, ...]:
    by_name = ("cosine",) if loss in _OF_ANGLES else ("cosine", "dot")
    return (*by_name, class_centres.to_centres)


SUITED: dict[Callable[..., Terms], tuple[str | Callable, ...]] = {
    loss: _suited(loss) for loss in LOSSES.values() if loss not in _OF_ANY_METRIC
}
"""The metrics of losses whose formulas have similarities, and not distances."""
