"""The runs that score how hard every example is, for configs/sweeps/examples.py.

    python -m experiments.sweep --config=configs/sweeps/references.py --workdir=runs/references
    for noise in 0 40; do python -m experiments.score --output=runs/scores$noise.npz \\
      --runs=$(ls -d runs/references/runs/noise$noise/semi_hard/* | paste -sd,); done
"""

from configs.sweeps import base
from configs.sweeps.schedules import small_digits


def get_config():
    sweep = base.get_config(small_digits())
    sweep.settings = tuple(
        (f"noise{percent}", {"dataset.label_noise": percent / 100}) for percent in (0, 40)
    )
    sweep.arms = (("semi_hard", {"mining.miner": "semi_hard"}),)
    sweep.reference = "semi_hard"
    sweep.seeds = (100, 101, 102)  # other seeds than those of the runs that use the scores
    return sweep
