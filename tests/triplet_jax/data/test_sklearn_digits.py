"""The handwritten digits of scikit-learn."""

import types

import numpy as np
import pytest
from sklearn.datasets import load_digits

from triplet_jax import data
from triplet_jax.data import sklearn_digits


def test_digits_are_the_real_ones():
    digits = data.digits(data.HeldOut(0.3, 0.1, seed=0))
    assert digits.inputs.shape == (1797, 8, 8, 1)
    assert digits.inputs.dtype == np.uint8
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 255)
    assert digits.class_names == tuple("0123456789")
    sizes = {split: len(digits.only(split)) for split in data.SPLITS}
    assert sum(sizes.values()) == 1797
    assert sizes["test"] == pytest.approx(0.3 * 1797, abs=6)
    assert sizes["validation"] == pytest.approx(0.1 * 1797, abs=6)
    for split in data.SPLITS:
        assert len(set(digits.only(split).labels)) == 10


def test_the_pixels_are_those_of_scikit_learn():
    digits, theirs = data.digits(data.HeldOut(0.3, 0.1, seed=0)), load_digits()
    np.testing.assert_array_equal(digits.labels, theirs.target)
    np.testing.assert_allclose(digits.inputs[..., 0] / 255, theirs.images / 16, atol=0.5 / 255)


def test_digits_are_the_same_where_their_file_is_elsewhere(monkeypatch):
    spec = types.SimpleNamespace(origin="/nowhere/__init__.py")
    read = sklearn_digits._read()
    monkeypatch.setattr(sklearn_digits.importlib.util, "find_spec", lambda _: spec)
    for array, other in zip(read, sklearn_digits._read(), strict=True):
        np.testing.assert_array_equal(array, other)
