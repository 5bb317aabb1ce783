"""Which remedies against wrong labels hold once each is tuned as well as the others?

    python -m experiments.sweep --config=configs/sweeps/label_noise.py --workdir=runs/label_noise

Expected: negatives that are weighed by hardness (Lan et al. 2025, arXiv 2503.04812) lose with wrong
labels, the more the stronger, so that a strength that falls beats one that rises; leaving out
negatives about as near as the positive (NV-Retriever, arXiv 2407.15831) helps, and so do less
biased negatives (Chuang et al. 2020, arXiv 2007.00224); PRISM (Liu et al. 2021, arXiv 2103.16047),
which looks for wrong labels, beats the schedule from hard to easy. `quantile` has the negatives of
that schedule without moving.

For each share of wrong labels, every arm is tried with eight settings from the same ranges, chosen
by the validation split, whose labels are right, and then trained with fresh seeds.
"""

from configs.sweeps import drawn
from configs.tune.base import between

_STRENGTH = {"field": "loss.knobs.hardness_strength", "start": 0.0}
_INFO_NCE = {"loss.name": "info_nce", "loss.metric": "cosine"}
_AWARE = _INFO_NCE | {"loss.name": "positive_aware"}
_PRISM = {"memory.size": 1024, "memory.start": 50}

# What is the same for all trials of an arm, and the ranges of what differs.
_RATE = {"optimizer.learning_rate": between(3e-4, 1e-2, log=True)}
_MARGIN = _RATE | {"loss.margin": between(0.05, 0.8, log=True)}
_TEMPERATURE = _RATE | {"loss.knobs.temperature": between(0.02, 0.5, log=True)}
_OF_STRENGTH = _TEMPERATURE | {"schedules.strength.end": between(1.0, 16.0, log=True)}
_OF_HARDNESS = _MARGIN | {
    "schedules.hardness.start": between(0.1, 0.6),
    "schedules.hardness.end": between(0.7, 1.0),
}
_RISING = {"schedules.hardness": {"field": "mining.knobs.hardness"}, "mining.miner": "quantile"}
_FALLING = {"schedules.hardness.order": "anti_curriculum"}
ARMS = {
    "semi_hard": ({"mining.miner": "semi_hard"}, _MARGIN),
    "quantile": (
        {"mining.miner": "quantile"},
        _MARGIN | {"mining.knobs.hardness": between(0.1, 1.0)},
    ),
    "curriculum": (_RISING, _OF_HARDNESS),
    "anti_curriculum": (_RISING | _FALLING, _OF_HARDNESS),
    "prism": (
        {"mining.miner": "semi_hard"} | _PRISM,
        _MARGIN | {"memory.noise_rate": between(0.05, 0.75)},
    ),
    "info_nce": (_INFO_NCE, _TEMPERATURE),
    "strength": (
        _INFO_NCE,
        _TEMPERATURE | {"loss.knobs.hardness_strength": between(1.0, 16.0, log=True)},
    ),
    "strength_rises": (_INFO_NCE | {"schedules.strength": _STRENGTH}, _OF_STRENGTH),
    "strength_falls": (
        _INFO_NCE | {"schedules.strength": _STRENGTH | {"order": "anti_curriculum"}},
        _OF_STRENGTH,
    ),
    "relative_margin": (
        _AWARE | {"loss.knobs.absolute_margin": 0.0},
        _TEMPERATURE | {"loss.knobs.relative_margin": between(-0.5, 0.5)},
    ),
    "absolute_margin": (
        _AWARE | {"loss.knobs.relative_margin": 0.0},
        _TEMPERATURE | {"loss.knobs.absolute_margin": between(-0.5, 0.5)},
    ),
    "debiased": (
        {"loss.name": "debiased", "loss.metric": "cosine"},
        _TEMPERATURE | {"loss.knobs.prior": between(0.01, 0.6, log=True)},
    ),
}


def get_config():
    sweep = drawn.tuned_alike(ARMS)
    sweep.claim = "With wrong labels, rules that mistrust near negatives beat semi-hard mining"
    sweep.source = "NV-Retriever 2024, Chuang et al. 2020, PRISM 2021"
    sweep.settings = tuple(
        (f"noise{percent}", {"dataset.label_noise": percent / 100}) for percent in (0, 20, 40, 60)
    )
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.reference = "semi_hard"
    return sweep
