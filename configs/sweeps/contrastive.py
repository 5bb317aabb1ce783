"""Triplet or contrastive? Every loss at the same budget, on handwritten digits or on Omniglot.

    python -m experiments.sweep --config=configs/sweeps/contrastive.py --workdir=runs/contrastive
    python -m experiments.sweep --config=configs/sweeps/contrastive.py:omniglot --workdir=runs/o

Each loss has its paper's defaults. Nothing is tuned for one loss alone: all have the same three
learning rates.
"""

from configs.base import CONTRASTIVE, VARIANTS
from configs.sweeps import base
from configs.sweeps.schedules import small_digits, small_omniglot

MINERS = ("semi_hard", "batch_hard", "batch_all")
SCHEDULES = ("curriculum", "anti_curriculum", "random_pacing", "self_paced")
TRIPLET = {name: VARIANTS[name] for name in (*MINERS, *SCHEDULES)} | {
    "xbm": {"memory.size": 600, "memory.start": 100}
}
RATES = (3e-4, 1e-3, 3e-3)


def get_config(data: str = "digits"):
    base.check_data(data)
    run = small_omniglot() if data == "omniglot" else small_digits()
    run.train.steps = 400 if data == "omniglot" else 300
    sweep = base.get_config(run)
    sweep.claim = "A contrastive loss beats the triplet loss at the same budget"
    sweep.source = "SimCLR, SupCon and the proxy losses, each in its paper"
    rates = RATES[1:] if data == "omniglot" else RATES
    sweep.settings = tuple((f"rate{rate:g}", {"optimizer.learning_rate": rate}) for rate in rates)
    sweep.arms = tuple((TRIPLET | CONTRASTIVE).items())
    if data == "omniglot":
        run.loss.num_classes = 874  # those that validation leaves to training
        sweep.seeds = (0, 1, 2)
    sweep.reference = "semi_hard"
    return sweep
