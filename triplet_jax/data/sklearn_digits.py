"""The handwritten digits that scikit-learn ships."""

import numpy as np

from triplet_jax.data import splits
from triplet_jax.data.dataset import SPLITS as SPLITS
from triplet_jax.data.dataset import Dataset as Dataset
from triplet_jax.data.dataset import fingerprint as fingerprint
from triplet_jax.data.dataset import fingerprints as fingerprints
from triplet_jax.data.dataset import images_as_classes as images_as_classes
from triplet_jax.data.dataset import quarter_turns_as_classes as quarter_turns_as_classes
from triplet_jax.data.image_folders import folder as folder
from triplet_jax.data.splits import hold_out as hold_out
from triplet_jax.data.tfds import from_tfds as from_tfds


def digits(*, test_fraction: float, validation_fraction: float, seed: int) -> Dataset:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries.

    E. Alpaydin and C. Kaynak 1998, "Optical Recognition of Handwritten Digits". The ten
    classes are the same in every split; images are held out.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    split = splits.at_random(
        labels,
        by="image",
        test_fraction=test_fraction,
        validation_fraction=validation_fraction,
        seed=seed,
    )
    return Dataset(images, labels, split, tuple(map(str, range(10))))
