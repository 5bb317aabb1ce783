"""Does taking hard negatives in slowly prevent what batch-hard mining loses?

    python -m experiments.sweep --config=configs/sweeps/hardness.py --workdir=runs/hardness

"Variations of our curriculum", Schroff et al. 2015. The quantile of the negative rises to the
hardest, falls from it, or is shuffled, at a short and a full budget.
"""

from configs.base import hardness
from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Hard negatives are better taken in slowly than at once"
    sweep.source = "Schroff et al. 2015, section 3.2"
    sweep.settings = (
        ("steps600", {}),
        ("steps60", {"train.steps": 60, "evaluate.every": 20, "log.every": 5}),
    )
    sweep.arms = (
        ("hardest", {"mining.miner": "quantile"}),
        ("curriculum", hardness("curriculum")),
        ("anti_curriculum", hardness("anti_curriculum")),
        ("random_pacing", hardness("random")),
        ("self_paced", hardness("curriculum", kind="self_paced")),
    )
    sweep.reference = "hardest"
    sweep.best_of = ("curriculum", "anti_curriculum", "random_pacing", "self_paced")
    return sweep
