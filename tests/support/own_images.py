"""A folder of images as a user may have it, and the config fields of a run on it."""

import numpy as np
import PIL.Image
import sklearn.datasets

NAMES = ("zero", "one", "two", "three")
FIELDS = {
    "config": "configs/folder.py",
    "model__name": "conv4",
    "dataset__image_size": 16,
    "dataset__validation_fraction": 0.3,
    "batch__classes": 4,
    "augment__flip": False,
}


def paint(folder):
    """PNG and JPEG in several sizes, a class a folder."""
    bunch = sklearn.datasets.load_digits()
    for i in range(400):
        if bunch.target[i] < len(NAMES):
            of_class = folder / NAMES[bunch.target[i]]
            of_class.mkdir(parents=True, exist_ok=True)
            image = PIL.Image.fromarray((bunch.images[i] * 15).astype(np.uint8))
            size = 16 + i % 5
            image.resize((size, size + i % 3)).save(of_class / f"{i}.{'jpg' if i % 2 else 'png'}")
