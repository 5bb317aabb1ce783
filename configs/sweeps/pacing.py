"""Which share should a self-paced rule hold: that of active triplets, or that of the gradient?

    python -m experiments.sweep --config=configs/sweeps/pacing.py --workdir=runs/pacing

Both rules move the quantile of hardness, up while the share is below its target and down while it
is above. One holds the share of triplets whose loss is above 0, the other the share of examples
among which the gradient is spread. Expected: holding the gradient's share beats holding that of
active triplets, since a batch teaches by its gradient. The rule is this project's own. `quantile`
has a fixed hardness, and `semi_hard` the usual rule.

With the easiest and with the hardest negatives, after half of a run, the gradient's share is 0.0
and 0.3 (with wrong labels 0.4 and 0.9), and that of active triplets 0.0 and 0.2 (0.1 and 1.0). A
target outside of that keeps the easiest or the hardest throughout; targets up to 1 are tried.

Every arm is tried with eight settings from the same ranges, chosen by the validation split, and
then trained with fresh seeds, with clean labels and with 40% of them wrong.
"""

from configs.sweeps import drawn
from configs.tune.base import between

_QUANTILE = {"mining.miner": "quantile"}
_MARGIN = {
    "optimizer.learning_rate": between(3e-4, 1e-2, log=True),
    "loss.margin": between(0.05, 0.8, log=True),
}


def _paced(holds, target):
    """The fields of an arm whose hardness holds a share, and the ranges of what is tried for it."""
    schedule = {"field": "mining.knobs.hardness", "kind": "self_paced", "holds": holds}
    fields = _QUANTILE | {"schedules.hardness": schedule | {"start": 0.1, "end": 1.0}}
    rate = between(0.01, 0.1, log=True)
    return fields, _MARGIN | {"schedules.hardness.target": target, "schedules.hardness.rate": rate}


ARMS = {
    "paced_by_triplets": _paced("active_fraction", between(0.02, 1.0)),
    "paced_by_gradient": _paced("gradient_share", between(0.05, 1.0)),
    "quantile": (_QUANTILE, _MARGIN | {"mining.knobs.hardness": between(0.1, 1.0)}),
    "semi_hard": ({"mining.miner": "semi_hard"}, _MARGIN),
}


def get_config():
    sweep = drawn.tuned_alike(ARMS)
    sweep.claim = "Hardness is better held by the gradient's share than by that of active triplets"
    sweep.source = "this project's own rule"
    sweep.settings = (("clean", {}), ("noise40", {"dataset.label_noise": 0.4}))
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.reference = "paced_by_triplets"
    return sweep
