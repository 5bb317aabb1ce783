"""Omniglot: 964 characters of 30 alphabets to learn from, 659 of 20 others to be judged by.

python -m experiments.train --config=configs/omniglot.py:semi_hard --workdir=runs/omniglot
"""

from configs import base


def get_config(variant: str = "semi_hard"):
    config = base.get_config()
    config.dataset.name = "omniglot"
    config.dataset.image_size = 28
    config.dataset.channels = 1
    config.dataset.invert = True
    config.dataset.split_by = "official"
    config.dataset.turns_as_classes = True
    config.loss.num_classes = 4 * 874  # four turns of each class that validation leaves to training
    config.train.steps = 3000
    return base.with_variant(config, variant)
