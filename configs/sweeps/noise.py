"""Which miners does label noise hurt most, and does a curriculum help?

    python -m experiments.sweep --config=configs/sweeps/noise.py --workdir=runs/noise

Schroff et al. 2015, section 3.2, and Hermans et al. 2017 warn that the farthest positive and the
nearest negative are the likeliest to be labelled wrongly. `curriculum` takes hard negatives in
slowly, `anti_curriculum` leaves them behind; `oracle` leaves the wrong labels out.
"""

from configs.base import hardness
from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Label noise hurts batch-hard mining more than semi-hard and batch-all"
    sweep.source = "Schroff et al. 2015; Hermans et al. 2017"
    sweep.settings = tuple(
        (f"noise{percent}", {"dataset.label_noise": percent / 100}) for percent in (0, 20, 40, 60)
    )
    sweep.also_seeds = ("seed", "dataset.noise_seed")
    sweep.arms = (
        ("semi_hard", {"mining.miner": "semi_hard"}),
        ("batch_all", {"mining.miner": "batch_all"}),
        ("batch_hard", {"mining.miner": "batch_hard"}),
        ("batch_hard_skip", {"mining.miner": "batch_hard_skip"}),
        ("curriculum", hardness("curriculum")),
        ("anti_curriculum", hardness("anti_curriculum")),
        ("oracle", {"mining.miner": "semi_hard", "dataset.drop_noisy": True}),
    )
    sweep.reference = "semi_hard"
    sweep.best_of = ("curriculum", "anti_curriculum")
    return sweep
