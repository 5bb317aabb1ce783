r"""Your own images: a folder that holds one folder of JPEG or PNG images for every class.

    python -m experiments.train --config=configs/folder.py:semi_hard \
        --config.dataset.path=FOLDER --workdir=runs/mine

Cost on two cores: 130 images of 64 pixels a second, so 4 minutes for the 1,000 steps.
What you will see depends on the images; result.json puts raw pixels
beside it. Classes with fewer than 4 training images have some drawn twice a batch. Group
normalisation, because a batch of few classes has uneven statistics.
"""

from configs import base


def get_config(variant: str = "semi_hard"):
    config = base.get_config()
    config.dataset.name = "folder"
    config.batch.classes = 8
    config.batch.small_classes = "redraw"
    config.augment.crop = 4
    config.augment.flip = True
    config.model.norm = "group"
    return base.with_variant(config, variant)
