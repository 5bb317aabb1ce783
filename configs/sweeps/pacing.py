"""Which share should a self-paced rule hold: of active triplets, or of examples with a gradient?

    python -m experiments.sweep --config=configs/sweeps/pacing.py --workdir=runs/pacing

Expected: hardness is better held by the share of examples among which the gradient is spread than
by the share of active triplets, and better than at any fixed value, since a batch teaches by its
gradient. With 40% of the labels wrong the gap grows: negatives with wrong labels are active, and
the gradient gathers on a few examples. The rule by the gradient is this project's own.

Every arm is tried with eight settings from the same ranges, chosen by the validation split, and
then trained with fresh seeds, with clean labels and with 40% of them wrong.
"""

from configs.sweeps import base, drawn
from configs.tune.base import between

TRIALS = 8
_QUANTILE = {"mining.miner": "quantile"}
_INFO_NCE = {"loss.name": "info_nce", "loss.metric": "cosine"}
_RATE = {"optimizer.learning_rate": between(3e-4, 1e-2, log=True)}
_MARGIN = _RATE | {"loss.margin": between(0.05, 0.8, log=True)}
_TEMPERATURE = _RATE | {"loss.knobs.temperature": between(0.02, 0.5, log=True)}


def _paced(name, field, start, end, **rest):
    """The fields of a schedule that holds a share, and the ranges of what is tried for it."""
    schedule = {"field": field, "kind": "self_paced", "start": start, "end": end, **rest}
    ranges = {
        f"schedules.{name}.target": between(0.2, 0.95),
        f"schedules.{name}.rate": between(0.003, 0.1, log=True),
    }
    return {f"schedules.{name}": schedule}, ranges


_BY_TRIPLETS, _PACES = _paced("hardness", "mining.knobs.hardness", 0.1, 1.0)
_BY_GRADIENT, _ = _paced("hardness", "mining.knobs.hardness", 0.1, 1.0, holds="gradient_share")
_STRENGTH, _PACES_OF_STRENGTH = _paced(
    "strength", "loss.knobs.hardness_strength", 16.0, 0.0, holds="gradient_share"
)
ARMS = {
    "semi_hard": ({"mining.miner": "semi_hard"}, _MARGIN),
    "quantile": (_QUANTILE, _MARGIN | {"mining.knobs.hardness": between(0.1, 1.0)}),
    "paced_by_triplets": (_QUANTILE | _BY_TRIPLETS, _MARGIN | _PACES),
    "paced_by_gradient": (_QUANTILE | _BY_GRADIENT, _MARGIN | _PACES),
    "strength": (
        _INFO_NCE,
        _TEMPERATURE | {"loss.knobs.hardness_strength": between(1.0, 16.0, log=True)},
    ),
    "strength_by_gradient": (_INFO_NCE | _STRENGTH, _TEMPERATURE | _PACES_OF_STRENGTH),
}


def get_config():
    sweep = base.get_config(drawn.digits_to_tune())
    sweep.claim = "Hardness is better held by the gradient's share than by that of active triplets"
    sweep.source = "this project's own rule"
    sweep.settings = (("clean", {}), ("noise40", {"dataset.label_noise": 0.4}))
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.seeds = tuple(range(10))
    sweep.arms = tuple((name, fields) for name, (fields, _) in ARMS.items())
    sweep.trials = tuple(
        (name, drawn.settings(ranges, TRIALS)) for name, (_, ranges) in ARMS.items()
    )
    sweep.reference = "quantile"
    return sweep
