"""Is batch-hard better than batch-all, and does a mean without zero losses help either?

    python -m experiments.sweep --config=configs/sweeps/averages.py --workdir=runs/averages

Hermans et al. 2017, table 1: batch-hard is better than batch-all with a mean over all triplets, and
about as good as batch-all with a mean over the active ones. That mean does not help batch-hard.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Batch-hard beats batch-all over all triplets, and ties with it over active ones"
    sweep.source = "Hermans et al. 2017, table 1"
    sweep.arms = tuple(
        (f"{miner}-{average}", {"mining.miner": miner, "loss.average": average})
        for miner in ("batch_all", "batch_hard")
        for average in ("valid", "active")
    )
    sweep.reference = "batch_all-valid"
    return sweep
