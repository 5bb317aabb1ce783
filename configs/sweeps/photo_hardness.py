"""Whether a schedule of hardness beats the best fixed rule, from pretrained features, tuned alike.

    python -m experiments.sweep --config=configs/sweeps/photo_hardness.py:tuning \
        --workdir=runs/tuning --config.run.dataset.path=FOLDER \
        --config.run.model.weights=FILE.safetensors
    python -m experiments.sweep --config=configs/sweeps/photo_hardness.py \
        --workdir=runs/photo_hardness \
        --config.run.dataset.path=FOLDER --config.run.model.weights=FILE.safetensors

FOLDER is the Grocery Store data set: see `benchmarks.grocery`. Every rule and every schedule is
tried with as many settings, drawn from the same ranges: learning rate, margin or temperature, and
what it moves. `tuning` learns from 17 classes and is judged on 8 others; the best of each is in
`CHOSEN`, and is then trained on all 25 with fresh seeds and judged on the 25 that nothing has seen.
"""

import numpy as np

from configs import photos
from configs.sweeps import base

TRIALS = 8
_INFO_NCE = {"loss.name": "info_nce", "loss.metric": "cosine"}
_SHARE, _STRENGTH = "mining.knobs.share", "loss.knobs.hardness_strength"


def _share(order="curriculum", **differences):
    moved = {"field": _SHARE, "start": 0.5, "scale": "log", "order": order}
    return {"mining.miner": "hardest_share", "schedules.share": moved | differences}


def _margin(order):
    moved = {"field": "loss.margin", "scale": "log", "order": order}
    return {"mining.miner": "semi_hard", "schedules.margin": moved}


def _strength(order):
    return _INFO_NCE | {"schedules.strength": {"field": _STRENGTH, "order": order}}


FIXED = {
    "semi_hard": {"mining.miner": "semi_hard"},
    "batch_hard": {"mining.miner": "batch_hard"},
    "batch_all": {"mining.miner": "batch_all"},
    "share": {"mining.miner": "hardest_share"},
    "info_nce": _INFO_NCE,
    "strength": _INFO_NCE,
}
SCHEDULES = {
    "share_falls": _share(),
    "share_rises": _share("anti_curriculum"),
    "share_self_paced": _share(kind="self_paced"),
    "margin_rises": _margin("curriculum"),
    "margin_falls": _margin("anti_curriculum"),
    "strength_rises": _strength("curriculum"),
    "strength_falls": _strength("anti_curriculum"),
    "temperature_falls": _INFO_NCE
    | {"schedules.temperature": {"field": "loss.knobs.temperature", "start": 0.5, "scale": "log"}},
}
RULES = FIXED | SCHEDULES
# The best trial by `tuning` of the rules that schedules start from, and of every schedule.
CHOSEN = {
    "batch_all": 2,
    "semi_hard": 2,
    "info_nce": 0,
    "share_falls": 2,
    "share_rises": 2,
    "share_self_paced": 0,
    "margin_rises": 2,
    "margin_falls": 2,
    "strength_rises": 0,
    "strength_falls": 0,
    "temperature_falls": 1,
}


def get_config(part: str = "final"):
    base.check_data(part, ("tuning", "final"))
    run = photos.get_config("head")
    split = "tuning" if part == "tuning" else "zero_shot"
    run.dataset.name = f"benchmarks.grocery:{split}"
    run.dataset.crop_ratio = 1.0  # the photographs are middle squares already
    run.model.dim = 128
    run.batch.classes = 12
    run.batch.per_class = 8  # the hardest hundredth of an anchor's 88 negatives is one of them
    run.train.patience = 0
    run.train.steps = 300
    run.evaluate.every = 300
    run.evaluate.checkpoint = "last"
    run.evaluate.episodes = 20
    sweep = base.get_config(run)
    sweep.engine = "vectorised"
    sweep.claim = "A schedule of hardness beats the best rule without one, tuned alike"
    sweep.source = "Musgrave et al. 2020 on equal tuning"
    if part == "tuning":
        sweep.arms = tuple(
            (f"{name}.{trial}", _trial(name, trial)) for name in RULES for trial in range(TRIALS)
        )
        sweep.seeds = (100,)
        sweep.reference = "semi_hard.0"
    else:
        sweep.arms = tuple((name, _trial(name, trial)) for name, trial in CHOSEN.items())
        sweep.seeds = tuple(range(10))
        sweep.reference = "batch_all"
    return sweep


def _trial(name, trial):
    """The fields of a rule with the settings of a trial, which are drawn on scales of factors."""
    random = np.random.default_rng(trial)  # the same for all rules

    def draw(low, high):
        return float(np.exp(random.uniform(np.log(low), np.log(high))).round(5))

    fields = {"optimizer.learning_rate": draw(1e-4, 3e-3)} | RULES[name]
    margin, temperature, strength = draw(0.05, 0.8), draw(0.02, 0.5), draw(0.5, 16.0)
    share, target = draw(0.01, 0.2), draw(0.1, 0.8)
    schedule = next((field for field in fields if field.startswith("schedules.")), "")
    if "loss.name" in fields:
        fields["loss.knobs.temperature"] = temperature
    else:
        fields["loss.margin"] = margin
    if name == "share":
        fields[_SHARE] = share
    if name == "strength":
        fields[_STRENGTH] = strength
    ends = {
        "schedules.share": {"end": share},
        "schedules.margin": {"start": margin / 4, "end": margin},
        "schedules.strength": {"start": 0.0, "end": strength},
        "schedules.temperature": {"end": temperature},
    }
    if schedule:
        fields[schedule] = fields[schedule] | ends[schedule]
    if name == "share_self_paced":
        fields[schedule] |= {"target": target}
    return fields
