"""Contrastive losses see all positives and negatives of an anchor at once.

A loss is a pure function of one anchor, with the signature of a miner:

    loss(to_positives, is_positive, to_negatives, is_negative) -> Terms

`to_positives` holds the anchor's distances `[positives]` to the candidates of its own class, in the
units of the metric; where `is_positive` is False they are padding. `to_negatives` holds its
distances `[negatives]` to all candidates; `is_negative` is True where these are of other classes.
`contrastive_loss` applies the function to a batch, in tiles of anchors and over devices:

    loss = sum over terms of  sum(value) / sum(weight)

Both sums run over the anchors of all devices, and a term without weight is 0. Keywords are knobs:
`functools.partial` sets them, and they may be traced and learned. Temperatures, scales, `alpha` and
`beta` must be above 0, and the `power` of `pairs` at least 1; nothing checks them.

Losses that the literature writes in similarities take `s = 1 - d`: the cosine with
`metric="cosine"`, the inner product with `metric="dot"`.
"""

from triplet_jax.contrastive.batch_loss import contrastive_loss
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
from triplet_jax.contrastive.registry import LOSSES
from triplet_jax.contrastive.softmax_losses import (
    info_nce,
    n_pairs,
    nca,
    supervised_contrastive,
    tuplet_margin,
)
from triplet_jax.engine.terms import Terms

__all__ = [
    "LOSSES",
    "Terms",
    "arcface",
    "circle",
    "contrastive_loss",
    "cosface",
    "debiased",
    "fast_ap",
    "info_nce",
    "lifted",
    "multi_similarity",
    "n_pairs",
    "nca",
    "p2s_grad",
    "pairs",
    "pnp",
    "positive_aware",
    "proxy_anchor",
    "ranked_list",
    "recall_at_k",
    "sigmoid",
    "smooth_ap",
    "sphereface",
    "supervised_contrastive",
    "tuplet_margin",
]
