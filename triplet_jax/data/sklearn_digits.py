"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8 pixels."""

import importlib.util
import pathlib

import numpy as np
from jaxtyping import Float, Int

from triplet_jax.data import splits
from triplet_jax.data.dataset import Dataset
from triplet_jax.data.splits import HeldOut


def digits(held_out: HeldOut) -> Dataset:
    """The 1,797 handwritten digits of scikit-learn, `[1797, 8, 8, 1]` of uint8, in ten classes.

    E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits",
    https://archive.ics.uci.edu/dataset/80. Every split has all ten classes.

    >>> found = digits(HeldOut(test=0.2, validation=0.1, seed=0))
    >>> found.only("test").inputs.shape
    (359, 8, 8, 1)

    Args:
      held_out: the shares of each class's examples to hold out.

    Raises:
      InputError: a share is outside [0, 1), or both are 1 or more.
    """
    pixels, classes = _read()
    images = np.round(pixels * (255 / 16)).astype(np.uint8)[..., None]
    labels = classes.astype(np.int32)
    split = splits.at_random(labels, held_out, by="image")
    return Dataset(images, labels, split, tuple(map(str, range(10))))


def _read() -> tuple[Float[np.ndarray, "images 8 8"], Int[np.ndarray, "images"]]:
    """The pixels, from 0 to 16, and the classes: `sklearn.datasets.load_digits`.

    They are read from its file, where that is found: to import scikit-learn takes 0.8 s, a seventh
    of the time from the start of a run to its first step.
    """
    package = pathlib.Path(importlib.util.find_spec("sklearn").origin).parent
    file = package / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        rows = np.loadtxt(file, delimiter=",")
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(int)
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images, found.target
