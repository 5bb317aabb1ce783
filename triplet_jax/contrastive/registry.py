"""The losses of one anchor by name, and the metrics that suit them."""

from collections.abc import Callable

from triplet_jax.contrastive.false_negatives import debiased, positive_aware
from triplet_jax.contrastive.pair_losses import circle, lifted, multi_similarity, pairs, sigmoid
from triplet_jax.contrastive.proxy_losses import arcface, proxy_anchor
from triplet_jax.contrastive.softmax_losses import info_nce, n_pairs, supervised_contrastive
from triplet_jax.engine.terms import Terms

LOSSES: dict[str, Callable[..., Terms]] = {
    "arcface": arcface,
    "circle": circle,
    "debiased": debiased,
    "info_nce": info_nce,
    "lifted": lifted,
    "multi_similarity": multi_similarity,
    "n_pairs": n_pairs,
    "pairs": pairs,
    "positive_aware": positive_aware,
    "proxy_anchor": proxy_anchor,
    "sigmoid": sigmoid,
    "supervised_contrastive": supervised_contrastive,
}
"""The losses of one anchor, by name."""

SUITED: dict[Callable[..., Terms], tuple[str, ...]] = {
    **{loss: ("cosine", "dot") for loss in LOSSES.values() if loss not in (lifted, pairs)},
    arcface: ("cosine",),
    debiased: ("cosine",),
}
"""The metrics of losses whose formulas have similarities, and not distances."""
