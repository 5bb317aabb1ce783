"""The losses of one anchor by name, and the metrics that suit them."""

from collections.abc import Callable

from triplet_jax.contrastive.false_negatives import debiased, positive_aware
from triplet_jax.contrastive.pair_losses import circle, lifted, multi_similarity, pairs, sigmoid
from triplet_jax.contrastive.proxy_losses import arcface, proxy_anchor
from triplet_jax.contrastive.rank_losses import (
    fast_ap,
    pnp,
    ranked_list,
    recall_at_k,
    smooth_ap,
)
from triplet_jax.contrastive.softmax_losses import info_nce, n_pairs, supervised_contrastive
from triplet_jax.engine.terms import Terms

LOSSES: dict[str, Callable[..., Terms]] = {
    "arcface": arcface,
    "circle": circle,
    "debiased": debiased,
    "fast_ap": fast_ap,
    "info_nce": info_nce,
    "lifted": lifted,
    "multi_similarity": multi_similarity,
    "n_pairs": n_pairs,
    "pairs": pairs,
    "pnp": pnp,
    "positive_aware": positive_aware,
    "proxy_anchor": proxy_anchor,
    "ranked_list": ranked_list,
    "recall_at_k": recall_at_k,
    "sigmoid": sigmoid,
    "smooth_ap": smooth_ap,
    "supervised_contrastive": supervised_contrastive,
}
"""The losses of one anchor, by name."""

# By distances of any kind, or by their order.
_OF_ANY_METRIC = (lifted, pairs, pnp, ranked_list, recall_at_k, smooth_ap)

SUITED: dict[Callable[..., Terms], tuple[str, ...]] = {
    **{loss: ("cosine", "dot") for loss in LOSSES.values() if loss not in _OF_ANY_METRIC},
    arcface: ("cosine",),
    debiased: ("cosine",),
    fast_ap: ("cosine",),
}
"""The metrics of losses whose formulas have similarities, and not distances."""
