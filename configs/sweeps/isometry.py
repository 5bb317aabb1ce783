"""Do large batches and few dimensions make hardest negatives collapse, and what prevents it?

    python -m experiments.sweep --config=configs/sweeps/isometry.py --workdir=runs/isometry

Xu et al. 2024, https://arxiv.org/abs/2210.11173: hardest-negative mining minimises about a distance
to an isometric copy of the classes, and collapses where batches are too large or dimensions too
few. Expected: more collapses from 20 to 320 images a batch, and with 4 dimensions than with 64;
none by semi-hard negatives. Against it stand global orthogonal regularisation (Zhang et al. 2017)
and the coding rate (Jiang et al. 2024), each with the weight 1. Learning rate and margin are those
at which configs/sweeps/collapse.py has some collapses, but not always.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits

_HARD = {"mining.miner": "batch_hard"}


def get_config():
    run = small_digits()
    run.loss.metric = "squared_euclidean"
    run.loss.margin = 1.0
    run.optimizer.learning_rate = 1e-2
    run.train.steps = 300
    run.evaluate.every = 300
    run.evaluate.episodes = 20
    run.log.every = 10
    sweep = base.get_config(run)
    sweep.claim = "Hardest negatives collapse with large batches and with few dimensions"
    sweep.source = "Xu et al. 2024, arXiv 2210.11173"
    sweep.settings = tuple(
        (f"batch{10 * each}-dim{dim}", {"batch.per_class": each, "model.dim": dim})
        for each in (2, 8, 32)
        for dim in (4, 64)
    )
    sweep.arms = (
        ("batch_hard", _HARD),
        ("semi_hard", {"mining.miner": "semi_hard"}),
        ("spread", _HARD | {"loss.spread_weight": 1.0}),
        ("coding_rate", _HARD | {"loss.coding_rate_weight": 1.0}),
    )
    sweep.seeds = tuple(range(10))
    sweep.reference = "batch_hard"
    return sweep
