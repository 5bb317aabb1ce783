"""The threshold of a search, set by a folder of class folders."""

import numpy as np
import pytest

from experiments.run import galleries, search_threshold
from tests.experiments.run.test_galleries import DIM, Encoder, listed, paint
from triplet_jax import errors


def by_folder(folder, place, rate):
    """The threshold by a folder, whose gallery is kept in `place`."""
    place.mkdir(exist_ok=True)
    with galleries.following(place, listed(folder), Encoder(), dim=DIM) as found:
        return search_threshold.by_folder(folder, found, rate)


def test_a_calibration_folder_sets_the_threshold(tmp_path):
    """20 images of two classes: pairs of two are 2 (g - h) apart, for the greys g and h."""
    greys = np.random.default_rng(0).integers(0, 256, 20)
    for i, grey in enumerate(greys):
        paint(tmp_path / "images" / str(i % 2) / f"{i}.png", int(grey))
    threshold = by_folder(tmp_path / "images", tmp_path / "place", 0.1)
    apart = np.sort(2.0 * np.abs(greys[0::2, None] - greys[None, 1::2]).ravel())
    assert np.mean(apart <= threshold.accepted.threshold) <= 0.1
    assert apart[10] > threshold.accepted.threshold >= apart[8]
    assert "20 images of 2 classes" in str(threshold) and not threshold.caution


def test_a_calibration_folder_that_cannot_tell_is_refused(tmp_path):
    folder = tmp_path / "images"
    for i in range(8):
        paint(folder / ("light" if i > 3 else "dark") / f"{i}.png", 30 * i)
    search_threshold.check_class_folders(folder, listed(folder))
    with pytest.raises(errors.InputError, match="too small: --false_accept_rate=0.01 .*1,000"):
        by_folder(folder, tmp_path / "place", 0.01)
    paint(folder / "loose.png", 0)
    for flag in ("calibration", "gallery"):
        with pytest.raises(
            errors.InputError, match=f"--{flag}=.*a folder for each class.*loose.png"
        ):
            search_threshold.check_class_folders(folder, listed(folder), flag)
