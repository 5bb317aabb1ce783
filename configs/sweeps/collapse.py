"""Does hardest-negative mining collapse where semi-hard mining does not?

    python -m experiments.sweep --config=configs/sweeps/collapse.py --workdir=runs/collapse

Schroff et al. 2015 say so; others report that a lower learning rate cures it. The runs train from
scratch on squared distances of normalised embeddings, with several learning rates and margins.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    run = small_digits()
    run.loss.metric = "squared_euclidean"
    sweep = base.get_config(run)
    sweep.claim = "Hardest-negative mining collapses where semi-hard mining does not"
    sweep.source = "Schroff et al. 2015, section 3.2"
    sweep.settings = tuple(
        (f"lr{rate}-margin{margin}", {"optimizer.learning_rate": rate, "loss.margin": margin})
        for rate in (1e-3, 1e-2)
        for margin in (0.2, 1.0)
    )
    sweep.arms = (
        ("semi_hard", {"mining.miner": "semi_hard"}),
        ("batch_hard", {"mining.miner": "batch_hard"}),
    )
    sweep.reference = "semi_hard"
    return sweep
