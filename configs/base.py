"""The config that others list their differences from, and differences that have a name.

Configs are data. `experiments/config/fields` declares every field, with its default, its meaning
and its values, and docs/fields.md lists them all.
"""

import ml_collections

from experiments.config import defaults
from experiments.config.defaults import add_own_knobs as add_own_knobs
from experiments.config.defaults import get_config as get_config
from experiments.config.defaults import like as like
from experiments.config.defaults import schedule as schedule
from experiments.config.defaults import with_differences as with_differences
from experiments.config.fields import WITH_KNOBS as WITH_KNOBS
from triplet_jax import mining


def hardness(order: str, **differences) -> dict:
    """The fields of a curriculum from the middle of the anchor's negatives to the hardest."""
    record = {"field": "mining.knobs.hardness", "order": order, "start": 0.5, "end": 1.0}
    return {"mining.miner": "quantile", "schedules.hardness": record | differences}


_COSINE = {"loss.metric": "cosine"}
_FREE_LENGTH = {"loss.metric": "dot", "model.normalize": False}
_PROXIES = {"loss.proxies": "references"}

# Losses other than triplet losses, some of them with proxies or class weights.
CONTRASTIVE = {
    "contrastive": {"loss.name": "pairs"},
    "signal_to_noise": {
        "loss.name": "pairs",
        "loss.metric": "signal_to_noise",
        "loss.knobs.power": 1.0,
    },
    "lifted": {"loss.name": "lifted"},
    "n_pairs": _FREE_LENGTH | {"loss.name": "n_pairs"},
    "nt_xent": _COSINE | {"loss.name": "info_nce"},
    "supcon": _COSINE | {"loss.name": "supervised_contrastive"},
    "multi_similarity": _COSINE | {"loss.name": "multi_similarity"},
    "circle": _COSINE | {"loss.name": "circle", "loss.knobs.margin": 0.4, "loss.knobs.scale": 80.0},
    "smooth_ap": _COSINE | {"loss.name": "smooth_ap"},
    "fast_ap": _COSINE | {"loss.name": "fast_ap"},
    "recall_at_k": _COSINE | {"loss.name": "recall_at_k"},
    "pnp": _COSINE | {"loss.name": "pnp"},
    "ranked_list": {"loss.name": "ranked_list"},
    "nca": {"loss.name": "nca", "loss.metric": "squared_euclidean"},
    "tuplet_margin": _COSINE | {"loss.name": "tuplet_margin"},
    "proxy_nca": _COSINE | _PROXIES | {"loss.name": "info_nce", "loss.knobs.temperature": 1 / 18},
    "proxy_anchor": _COSINE | {"loss.name": "proxy_anchor", "loss.proxies": "anchors"},
    "softmax": _FREE_LENGTH | _PROXIES | {"loss.name": "info_nce", "loss.knobs.temperature": 1.0},
    "arcface": _COSINE | _PROXIES | {"loss.name": "arcface"},
    "cosface": _COSINE | _PROXIES | {"loss.name": "cosface"},
    "sphereface": _COSINE | _PROXIES | {"loss.name": "sphereface"},
    "subcentre_arcface": _COSINE | _PROXIES | {"loss.name": "arcface", "loss.centres": 3},
    "soft_triple": _COSINE
    | _PROXIES
    | {
        "loss.name": "cosface",
        "loss.knobs.margin": 0.01,
        "loss.knobs.scale": 20.0,
        "loss.centres": 10,
        "loss.centres_temperature": 0.1,
    },
    "p2s_grad": _COSINE | _PROXIES | {"loss.name": "p2s_grad"},
}

# Losses that weigh negatives by hardness, or mistrust those near the positive; SigLIP's loss.
HARDNESS = {
    "hardness_weighted": _COSINE | {"loss.name": "info_nce", "loss.knobs.hardness_strength": 5.0},
    "hardness_rising": _COSINE
    | {
        "loss.name": "info_nce",
        "schedules.strength": {"field": "loss.knobs.hardness_strength", "start": 0.0, "end": 9.0},
    },
    "positive_aware": _COSINE | {"loss.name": "positive_aware"},
    "debiased": _COSINE | {"loss.name": "debiased"},
    "siglip": _COSINE | {"loss.name": "sigmoid", "loss.learned": ("scale", "bias")},
}

# A miner with the hinge, or a penalty with its paper's miner.
TRIPLET = {miner: {"mining.miner": miner} for miner in mining.MINERS} | {
    # The hinge of an easy triplet is zero, so its mean over them would teach nothing.
    "easy": {"mining.miner": "easy", "loss.penalty": "soft_margin", "loss.average": "valid"},
    "semi_hard_tfa": {"mining.miner": "semi_hard_tfa", "loss.average": "valid"},
    "anchor_swap": {"mining.miner": "batch_hard", "loss.penalty": "anchor_swap"},
    "margin_based": {
        "mining.miner": "distance_weighted",
        "loss.penalty": "margin_based",
        "loss.margin": 0.2,
        "loss.learned": ("beta",),
    },
    "ratio": {"mining.miner": "batch_hard", "loss.penalty": "ratio"},
    "selectively_contrastive": {
        "mining.miner": "easy_positive_hard",
        "loss.penalty": "selectively_contrastive",
        "loss.metric": "cosine",
    },
    "soft_margin": {"mining.miner": "batch_hard", "loss.penalty": "soft_margin"},
    "squared_hinge": {"mining.miner": "semi_hard", "loss.penalty": "squared_hinge"},
    "curriculum": hardness("curriculum"),
    "anti_curriculum": hardness("anti_curriculum"),
    "random_pacing": hardness("random"),
    "self_paced": hardness("curriculum", kind="self_paced"),
}
# The plain name is that of its paper's loss.
TRIPLET["multi_similarity_mined"] = TRIPLET.pop("multi_similarity")

# Without labels: two random views of an image are a class, and all other images are negatives.
_TWO_VIEWS = _COSINE | {
    "dataset.images_as_classes": True,
    "batch.classes": 64,
    "batch.per_class": 2,
    "batch.small_classes": "redraw",
    "loss.name": "info_nce",
    "loss.knobs.temperature": 0.5,
    # Views that hardly differ do not teach what images have in common.
    "augment.rotate": 20.0,
    "augment.shift": 1.0,
    "augment.scale": 0.2,
    "augment.shear": 15.0,
    "augment.noise": 0.1,
}
UNLABELLED = {
    "simclr": _TWO_VIEWS,
    "moco": _TWO_VIEWS
    | {
        "optimizer.average_decay": 0.9,  # for a short run; the paper's long ones have 0.999
        "memory.size": 1024,
        "memory.of_average": True,
    },
    # Its three terms, divided by 25 and times the values of an embedding, of which pairs has sums.
    "vicreg": _TWO_VIEWS
    | {
        "loss.name": "pairs",
        "loss.metric": "euclidean",
        "loss.knobs.temperature": None,
        "loss.knobs.margin": 0.0,
        "loss.variance_weight": 64.0,
        "loss.covariance_weight": 5.12,
        "model.normalize": False,
    },
    # Each view of an image has its own encoder.
    "clip": _TWO_VIEWS | {"loss.knobs.temperature": 0.1, "model.towers": 2},
}

# Additions to an encoder or to a loss while it is trained.
ADDITIONS = {
    "dropout": {"model.dropout": 0.2},
    "projection": CONTRASTIVE["nt_xent"] | {"model.projection": 64},
    "matryoshka": {"loss.nested_dims": (4, 8, 16, 32, 64)},
    "norm": CONTRASTIVE["n_pairs"] | {"loss.norm_weight": 0.01},
    "spread": {"loss.spread_weight": 1.0},
    "coding_rate": {"loss.coding_rate_weight": 1.0},
    "pair_variance": CONTRASTIVE["tuplet_margin"] | {"loss.pair_variance_weight": 0.5},
    # The pairs alone cost nothing: no distance between embeddings of length 1 is above 2.
    "histogram": {
        "loss.name": "pairs",
        "loss.knobs.margin": 0.0,
        "loss.knobs.positive_margin": 2.0,
        "loss.histogram_weight": 1.0,
    },
    "threshold_consistency": {"loss.threshold_consistency_weight": 1.0},
}

# What may follow the colon in --config=configs/digits.py:semi_hard.
VARIANTS = {
    **TRIPLET,
    "grad_cache": {"batch.per_class": 16, "train.micro_batches": 4},
    "offline": {"offline.every": 200},
    "xbm": {"memory.size": 1024, "memory.start": 100},
    "prism": {"memory.size": 1024, "memory.start": 100, "memory.noise_rate": 0.4},
    **ADDITIONS,
    **CONTRASTIVE,
    **HARDNESS,
    **UNLABELLED,
}


def with_variant(
    config: ml_collections.ConfigDict, variant: str, variants: dict[str, dict] = VARIANTS
) -> ml_collections.ConfigDict:
    """The config with the differences that a variant's name stands for."""
    if variant not in variants:
        raise ValueError(
            f"variant {variant!r} is not known; after the colon may stand one of"
            f" {', '.join(sorted(variants))}"
        )
    return defaults.with_differences(config, variants[variant])
