"""Omniglot: 964 characters of 30 alphabets to learn from, 659 of 20 others to be judged by.

    python -m experiments.train --config=configs/omniglot.py:semi_hard --workdir=runs/omniglot

The variant `vinyals` trains by the lists of Vinyals et al. 2016, on which papers report few-shot
accuracy: 4,112 classes to learn from, 688 to choose the checkpoint by, 1,692 to be judged by, four
turns of each character. Prototypical networks (https://arxiv.org/abs/1703.05175) reach 96.0% for
one example of 20 classes (`few_shot_1`) with the same encoder. They are trained on the validation
classes, too.

The variant `long` trains semi-hard triplets to the end, in 25 minutes: 20,000 steps on images that
are changed at random, judged by a moving average of the weights. `sharp` takes 6,000 steps in
batches of twice as many classes, on images of 56 x 56 pixels that are not changed, with mirrored
characters as further classes. It learns from all 30 alphabets, so that there is no validation, and
is judged by its last weights, by 40 copies of each image: in eight positions, each with four small
shifts. It has better scores. Training takes an hour, and judging 22 minutes on one core.
"""

from configs import base

LONG = {
    "augment.rotate": 10.0,
    "augment.shift": 2.0,
    "augment.scale": 0.15,
    "augment.shear": 10.0,
    "optimizer.learning_rate": 2e-3,
    "optimizer.average_decay": 0.999,
    "train.steps": 20000,
    "evaluate.every": 1000,
    "log.every": 100,
}

VARIANTS = base.VARIANTS | {
    "vinyals": {
        "dataset.split_by": "vinyals",
        "dataset.turns_as_classes": False,  # the lists have them
        "loss.num_classes": 4112,
        "evaluate.episodes": 1000,
    },
    "long": LONG,
    "sharp": {
        "dataset.image_size": 56,
        "dataset.mirrored_as_classes": True,
        "dataset.validation_fraction": 0.0,
        "evaluate.checkpoint": "last",
        "evaluate.augment": ("shifts", "turns", "mirror"),
        "loss.num_classes": 8 * 964,
        "batch.classes": 64,
        "loss.margin": 0.2,
        "optimizer.learning_rate": 3e-3,
        "optimizer.average_decay": 0.999,
        "train.steps": 6000,
        "log.every": 100,
    },
}


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
    return base.with_variant(config, variant, VARIANTS)
