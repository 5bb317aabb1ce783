"""Does it help to begin with easy examples: with noise, with little time, or never?

    python -m experiments.sweep --config=configs/sweeps/examples.py --workdir=runs/examples

Wu et al. 2021: it does not on clean data with a full budget, where any order is as good. It helps
with 40% label noise, about as much as leaving the wrong labels out, and at a tenth or a hundredth
of the budget. The scores come from configs/sweeps/references.py; the noise is the same for all
seeds.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def examples(order):
    """A pool of examples that grows from a fifth to all of them over 80% of training."""
    record = {"field": "batch.pool", "start": 0.2, "end": 1.0}
    return {"batch.order": order, "schedules.pool": record}


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Easy examples first: no use on clean data, of use with noise or little time"
    sweep.source = "Wu et al. 2021"
    short = {"train.steps": 60, "evaluate.every": 20, "log.every": 5}
    shorter = {"train.steps": 6, "evaluate.every": 6, "log.every": 1}
    clean = {"batch.scores": "runs/scores0.npz"}
    noisy = {"dataset.label_noise": 0.4, "batch.scores": "runs/scores40.npz"}
    sweep.settings = (
        ("clean", clean),
        ("clean-tenth", clean | short),
        ("clean-hundredth", clean | shorter),
        ("noise40", noisy),
        ("noise40-tenth", noisy | short),
    )
    sweep.arms = (
        ("standard", {}),
        ("easy_first", examples("easy")),
        ("hard_first", examples("hard")),
        ("random_order", examples("random")),
        ("oracle", {"dataset.drop_noisy": True}),
    )
    sweep.reference = "standard"
    sweep.best_of = ("easy_first", "hard_first", "random_order")
    return sweep
