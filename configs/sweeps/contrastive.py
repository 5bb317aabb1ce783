"""Triplet or contrastive? Every loss at the same budget, on handwritten digits.

python -m experiments.sweep --config=configs/sweeps/contrastive.py --workdir=runs/contrastive

Each loss has the defaults of its paper, and nothing is tuned for any: three learning rates stand
for the tuning that all have in common.
"""

from configs.base import CONTRASTIVE
from configs.sweeps import base
from configs.sweeps.schedules import small_digits

TRIPLET = {
    "semi_hard": {"mining.miner": "semi_hard"},
    "batch_hard": {"mining.miner": "batch_hard"},
    "batch_all": {"mining.miner": "batch_all"},
    "xbm": {"memory.size": 600, "memory.start": 100},
}
RATES = (3e-4, 1e-3, 3e-3)


def get_config():
    run = small_digits()
    run.train.steps = 300
    sweep = base.get_config(run)
    sweep.claim = "A contrastive loss beats the triplet loss at the same budget"
    sweep.source = "SimCLR, SupCon and the proxy losses, each in its paper"
    sweep.settings = tuple((f"rate{rate:g}", {"optimizer.learning_rate": rate}) for rate in RATES)
    sweep.arms = tuple((TRIPLET | CONTRASTIVE).items())
    sweep.reference = "semi_hard"
    return sweep
