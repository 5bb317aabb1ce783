"""Do plain distances collapse less often than squared ones, and are they as good?

    python -m experiments.sweep --config=configs/sweeps/squared.py --workdir=runs/squared

Hermans et al. 2017 found training with squared distances more prone to collapse.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.claim = "Plain distances collapse less often than squared ones, at the same quality"
    sweep.source = "Hermans et al. 2017, section 3"
    sweep.settings = tuple(
        (miner, {"mining.miner": miner}) for miner in ("semi_hard", "batch_hard", "batch_all")
    )
    sweep.arms = (
        ("plain", {"loss.metric": "euclidean"}),
        ("squared", {"loss.metric": "squared_euclidean"}),
    )
    sweep.reference = "plain"
    return sweep
