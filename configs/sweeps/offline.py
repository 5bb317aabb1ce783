"""Online or offline mining?

    python -m experiments.sweep --config=configs/sweeps/offline.py --workdir=runs/offline
    python -m experiments.sweep --config=configs/sweeps/offline.py:omniglot --workdir=runs/o

Harwood et al. 2017 claim that mining over the whole set learns faster than mining in batches. Here
both have the same number of steps; offline mining embeds the training set beside them, three times.
A batch of digits holds half of the classes, one of Omniglot a few of very many.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits, small_omniglot


def get_config(data: str = "digits"):
    base.check_data(data)
    run = small_omniglot() if data == "omniglot" else small_digits()
    if data == "digits":
        run.batch.update(classes=5, per_class=4)
        run.train.steps = 300
    sweep = base.get_config(run)
    sweep.claim = "Batches mined over the whole set beat batches of random classes"
    sweep.source = "Harwood et al. 2017"
    offline = {"offline.every": sweep.run.train.steps // 4}
    sweep.arms = (
        ("semi_hard", {}),
        ("batch_hard", {"mining.miner": "batch_hard"}),
        ("offline", offline),
        ("offline-batch_hard", offline | {"mining.miner": "batch_hard"}),
        ("offline-random", offline | {"mining.miner": "random"}),
        ("random", {"mining.miner": "random"}),
    )
    sweep.reference = "semi_hard"
    if data == "omniglot":
        sweep.arms += (("alphabets", {"batch.same_group": 1.0}),)
        sweep.seeds = (0, 1, 2)
    sweep.engine = "here"
    return sweep
