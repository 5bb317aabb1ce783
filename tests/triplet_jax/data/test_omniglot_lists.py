"""The lists of Vinyals et al.; tests/triplet_jax/data/test_tfds_omniglot.py reads them for real."""

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.data import omniglot_lists


def test_characters_of_one_alphabet_may_be_in_two_lists():
    names = [f"Gurmukhi_{n}" for n in range(45)]
    lists = [omniglot_lists._list_of(name) for name in names]
    assert lists == ["train"] * 41 + ["test"] * 4
    assert omniglot_lists._list_of("Old_Church_Slavonic_(Cyrillic)_3") == "test"
    assert omniglot_lists._list_of("Mkhedruli_(Georgian)_0") == "validation"
    assert omniglot_lists._list_of("Greek_0") == "train"


def test_every_example_is_in_the_list_of_its_character(monkeypatch):
    characters = {"train": 1, "validation": 1, "test": 2}
    monkeypatch.setattr(omniglot_lists, "CHARACTERS", characters)
    names = ["Greek_0", "ULOG_7", "Hebrew_1", "Gurmukhi_44"]
    found = omniglot_lists.split(np.array([3, 0, 2, 1, 0]), names)
    assert found.tolist() == ["test", "train", "validation", "test", "train"]


def test_other_characters_are_refused_with_their_numbers():
    with pytest.raises(errors.InputError, match="here are 1 for train, 0 for val"):
        omniglot_lists.split(np.array([0, 1]), ["Greek_0", "ULOG_7"])
