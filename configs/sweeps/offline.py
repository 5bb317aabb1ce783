"""Online or offline mining? On Omniglot, whose classes are many more than a batch holds.

    python -m experiments.sweep --config=configs/sweeps/offline.py --workdir=runs/offline

Harwood et al. 2017 claim that mining over the whole set learns faster than mining in batches. Here
both have the same number of steps; offline mining embeds the training set three times beside them.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_omniglot


def get_config():
    sweep = base.get_config(small_omniglot())
    sweep.claim = "Batches mined over the whole set beat batches of random classes"
    sweep.source = "Harwood et al. 2017"
    offline = {"offline.every": sweep.run.train.steps // 4}
    sweep.arms = (
        ("semi_hard", {}),
        ("batch_hard", {"mining.miner": "batch_hard"}),
        ("alphabets", {"batch.same_group": 1.0}),
        ("offline", offline),
        ("offline-random", offline | {"mining.miner": "random"}),
        ("random", {"mining.miner": "random"}),
    )
    sweep.reference = "semi_hard"
    sweep.seeds = (0, 1, 2)
    sweep.engine = "here"
    return sweep
