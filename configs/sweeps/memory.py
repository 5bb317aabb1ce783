"""Does a memory across batches stand in for larger batches, and does it need a warm-up?

    python -m experiments.sweep --config=configs/sweeps/memory.py --workdir=runs/memory

Wang et al. 2020 (XBM): a memory makes small batches as good as large ones, once the encoder moves
slowly enough; they fill it after a warm-up.
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits

START = 100


def get_config():
    run = small_digits()
    run.batch.classes = 5
    sweep = base.get_config(run)
    sweep.claim = "A memory stands in for larger batches, after a warm-up"
    sweep.source = "Wang et al. 2020"
    sweep.settings = tuple((f"batch{5 * k}", {"batch.per_class": k}) for k in (2, 4, 12))
    sweep.arms = (
        ("none", {}),
        ("xbm250", {"memory.size": 250, "memory.start": START}),
        ("xbm1000", {"memory.size": 1000, "memory.start": START}),
        ("xbm1000-at-once", {"memory.size": 1000}),
    )
    sweep.reference = "none"
    return sweep
