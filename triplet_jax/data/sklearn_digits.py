"""The handwritten digits that scikit-learn ships: 1,797 images of 8 x 8 pixels."""

import numpy as np

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
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    split = splits.at_random(labels, held_out, by="image")
    return Dataset(images, labels, split, tuple(map(str, range(10))))
