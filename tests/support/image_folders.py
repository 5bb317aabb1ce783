"""Folders of small images, and the data set of one."""

import numpy as np
import PIL.Image

from triplet_jax import data
from triplet_jax.data import images

FORM = images.ImageForm(size=8, channels=3)
SPLIT = {"split_by": "image", "held_out": data.HeldOut(0.25, 0.25, seed=0)}


def save_image(path, value, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def fold(path, bad_images="refuse", **changes):
    return data.folder(str(path), form=FORM, bad_images=bad_images, **(SPLIT | changes))
