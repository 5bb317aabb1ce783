"""The mark by which a gallery knows the encoder that made it."""

import dataclasses

import numpy as np

from experiments.run import embedders
from triplet_jax.data import images

FORM = images.ImageForm(size=8, channels=3)


def mark(form, weight=1.0):
    return embedders.Embedder(None, {"weight": np.full(3, weight, np.float32)}, form).mark


def test_the_mark_changes_with_the_weights_and_with_how_pictures_are_read():
    others = [
        mark(FORM, weight=2.0),
        *(
            mark(dataclasses.replace(FORM, **field))
            for field in ({"resample": "bicubic"}, {"crop_ratio": 0.875}, {"fit": "pad"})
        ),
    ]
    assert len({mark(FORM), *others}) == 5


def test_the_mark_is_that_of_versions_before_these_fields():
    """Otherwise all galleries would be embedded anew."""
    assert mark(FORM) == "fab39a4078317276"
