"""Is distance-weighted sampling better than semi-hard mining, and both than uniform sampling?

    python -m experiments.sweep --config=configs/sweeps/distance_weighted.py --workdir=runs/d

Wu et al. 2017, "Sampling Matters in Deep Embedding Learning", says so for one and the same loss.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Distance-weighted sampling beats semi-hard mining, which beats uniform sampling"
    sweep.source = "Wu et al. 2017"
    sweep.arms = tuple(
        (miner, {"mining.miner": miner}) for miner in ("semi_hard", "distance_weighted", "random")
    )
    sweep.reference = "semi_hard"
    return sweep
