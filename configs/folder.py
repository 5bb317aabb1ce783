r"""Your own images: a folder that holds one folder of JPEG or PNG images for every class.

    python -m experiments.train --config=configs/folder.py:semi_hard \
        --config.dataset.path=FOLDER --workdir=runs/mine

The cost grows with the size of the images; conv4 takes about 70 ms a step of 32 images of 64
pixels on two cores. What you will see depends on the images; result.json puts raw pixels
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
