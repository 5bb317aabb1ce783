"""Which learning rate, margin and miner suit a small network on handwritten digits?

    python -m experiments.tune --config=configs/tune/digits.py --workdir=runs/tune

Cost on two cores: two to six minutes. docs/tuning.md has what came out.
"""

from configs.sweeps.schedules import small_digits
from configs.tune import base


def get_config():
    run = small_digits()
    run.train.steps = 300
    run.dataset.validation_fraction = 0.2
    study = base.get_config(run)
    study.seeds = (0, 1)
    study.space = (
        ("optimizer.learning_rate", base.between(1e-4, 1e-2, log=True)),
        ("loss.margin", base.between(0.05, 1.0)),
        ("mining.miner", base.one_of("semi_hard", "batch_hard")),
    )
    return study
