"""The losses of one anchor by name, and the metrics that suit them."""

from collections.abc import Callable

from triplet_jax import class_centres
from triplet_jax.contrastive.false_negatives import debiased, positive_aware
from triplet_jax.contrastive.pair_losses import circle, lifted, multi_similarity, pairs, sigmoid
from triplet_jax.contrastive.proxy_losses import (
    arcface,
    cosface,
    p2s_grad,
    proxy_anchor,
    sphereface,
)
from triplet_jax.contrastive.rank_losses import (
    fast_ap,
    pnp,
    ranked_list,
    recall_at_k,
    smooth_ap,
)
from triplet_jax.contrastive.softmax_losses import (
    info_nce,
    n_pairs,
    nca,
    supervised_contrastive,
    tuplet_margin,
)
from triplet_jax.engine.terms import Terms

LOSSES: dict[str, Callable[..., Terms]] = {
    "arcface": arcface,
    "circle": circle,
    "cosface": cosface,
    "debiased": debiased,
    "fast_ap": fast_ap,
    "info_nce": info_nce,
    "lifted": lifted,
    "multi_similarity": multi_similarity,
    "n_pairs": n_pairs,
    "nca": nca,
    "p2s_grad": p2s_grad,
    "pairs": pairs,
    "pnp": pnp,
    "positive_aware": positive_aware,
    "proxy_anchor": proxy_anchor,
    "ranked_list": ranked_list,
    "recall_at_k": recall_at_k,
    "sigmoid": sigmoid,
    "smooth_ap": smooth_ap,
    "sphereface": sphereface,
    "supervised_contrastive": supervised_contrastive,
    "tuplet_margin": tuplet_margin,
}
"""The losses of one anchor, by name."""

# By distances of any kind, or by their order.
_OF_ANY_METRIC = (lifted, nca, pairs, pnp, ranked_list, recall_at_k, smooth_ap)

# By angles, which inner products of any length do not give.
_OF_ANGLES = (arcface, cosface, debiased, fast_ap, p2s_grad, sphereface, tuplet_margin)


def _suited(loss: Callable[..., Terms]) -> tuple[str | Callable, ...]:
    by_name = ("cosine",) if loss in _OF_ANGLES else ("cosine", "dot")
    return (*by_name, class_centres.to_centres)


SUITED: dict[Callable[..., Terms], tuple[str | Callable, ...]] = {
    loss: _suited(loss) for loss in LOSSES.values() if loss not in _OF_ANY_METRIC
}
"""The metrics of losses whose formulas have similarities, and not distances."""
