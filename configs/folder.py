"""Your own images: a folder that holds one folder of JPEG or PNG images for every class.

    python -m experiments.train --config=configs/folder.py:semi_hard \
        --config.dataset.path=FOLDER --workdir=runs/mine
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
