r"""Your own images: a folder that holds one folder of images for every class.

    python -m experiments.train --config=configs/folder.py:semi_hard \
        --config.dataset.path=FOLDER --workdir=runs/mine

Of a picture that is not square its middle square alone is seen; --config.dataset.fit=pad or stretch
shows all of it. Searching and embedding with the run treat pictures as it did.

Cost on two cores: 130 images of 64 pixels a second without other load, so 4 minutes for the 1,000
steps. Seen on photographs of groceries, with 1,000 steps of 64 pixels: P@1 0.826 and MAP@R 0.604 on
the run's own test split, but 0.676 and 0.453 on photographs taken at other times. Tried at 160
pixels (30 steps) and 224 (3 steps, 2.5 GiB), too, of which the cost was not measured.

What you will see depends on the images; result.json puts raw pixels beside it. Classes with fewer
than 4 training images have some drawn twice a batch. Group normalisation, because a batch of few
classes has uneven statistics.
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
