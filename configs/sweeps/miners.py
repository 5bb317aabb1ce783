"""Every miner and penalty on handwritten digits, as docs/miners.md has it.

python -m experiments.sweep --config=configs/sweeps/miners.py --workdir=runs/miners
"""

from configs import digits
from configs.base import TRIPLET
from configs.sweeps import base


def get_config():
    run = digits.get_config()
    run.train.steps = 300
    run.evaluate.every = 300
    sweep = base.get_config(run)
    sweep.arms = tuple(TRIPLET.items())
    sweep.reference = "semi_hard"
    return sweep
