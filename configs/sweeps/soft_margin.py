"""Is the soft margin as good as the best hinge for batch-hard mining?

    python -m experiments.sweep --config=configs/sweeps/soft_margin.py --workdir=runs/soft_margin

Hermans et al. 2017, table 1, without normalised embeddings. With normalised ones the soft margin's
gradient never vanishes, as no difference of distances is below -2.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.run.mining.miner = "batch_hard"
    sweep.claim = "The soft margin is at least as good as the best hinge for batch-hard mining"
    sweep.source = "Hermans et al. 2017, table 1"
    sweep.settings = (
        ("free", {"model.normalize": False}),
        ("normalized", {"model.normalize": True}),
    )
    hinges = tuple((f"hinge{margin}", {"loss.margin": margin}) for margin in (0.1, 0.3, 1.0))
    sweep.arms = (("soft_margin", {"loss.penalty": "soft_margin"}), *hinges)
    sweep.reference = "soft_margin"
    sweep.best_of = tuple(name for name, _ in hinges)
    return sweep
