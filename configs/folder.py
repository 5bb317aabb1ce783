r"""Your own images: a folder that holds one folder of images for every class.

    python -m experiments.train --config=configs/folder.py:semi_hard \
        --config.dataset.path=FOLDER --workdir=runs/mine

A picture that is not square is cropped to its middle square; --config.dataset.fit=pad or stretch
keeps all of it. Searching and embedding with the run treat pictures in the same way.

Cost on two cores: 130 images of 64 pixels a second without other load, so 4 minutes for the 1,000
steps. Seen on photographs of groceries, with 1,000 steps of 64 pixels: P@1 0.826 and MAP@R 0.604 on
the run's own test split, but 0.676 and 0.453 on photographs taken at other times. It also
runs at 160 pixels (tried for 30 steps) and at 224 (3 steps, 2.8 GiB); their cost was not measured.

Your scores depend on your images; result.json puts those of raw pixels beside them. Classes with
fewer than 4 training images have some of them twice in a batch. The norm is group normalisation,
because a batch of few classes has uneven statistics.
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
