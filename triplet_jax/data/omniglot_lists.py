"""Omniglot's characters by the lists of Vinyals et al. 2016, on which few-shot papers report.

The lists of Snell et al. 2017 (https://arxiv.org/abs/1703.05175) are these: in the order of
Omniglot's own folders, background before evaluation, the first 1,200 characters are for training
and the other 423 for the test. So the alphabet Gurmukhi has characters in both. Five whole
alphabets of the first part are for validation.
"""

import collections
from collections.abc import Sequence

import numpy as np

from triplet_jax import errors
from triplet_jax.data.splits import Labels, Split

CHARACTERS = {"train": 1028, "validation": 172, "test": 423}
"""How many characters each list has; every quarter turn of a character is a class of its own."""

_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
_TEST = (
    "Kannada",
    "Keble",
    "Malayalam",
    "Manipuri",
    "Mongolian",
    "Old_Church_Slavonic_(Cyrillic)",
    "Oriya",
    "Sylheti",
    "Syriac_(Serto)",
    "Tengwar",
    "Tibetan",
    "ULOG",
)
# Of this alphabet the characters before that number are for training.
_SHARED, _FIRST_OF_TEST = "Gurmukhi", 41


def split(labels: Labels, class_names: Sequence[str]) -> Split:
    """The split of every example by the lists.

    Args:
      labels: the class of every example, an index into `class_names`.
      class_names: as tensorflow-datasets names them: alphabet and number from 0, such as "Greek_3".

    Raises:
      InputError: the characters are not those of the whole of Omniglot.
    """
    of_classes = [_list_of(name) for name in class_names]
    found = collections.Counter(of_classes)
    if found != CHARACTERS:
        raise errors.InputError(
            "split_by='vinyals' divides the 1,623 characters of the whole of Omniglot into"
            f" {_sizes(CHARACTERS)}, and here are {_sizes(found)}. Set name='omniglot',"
            " train_split='train', test_split='test', or split otherwise."
        )
    return np.array(of_classes)[labels]


def _list_of(character):
    alphabet, _, number = character.rpartition("_")
    if alphabet == _SHARED and number.isdecimal():
        return "train" if int(number) < _FIRST_OF_TEST else "test"
    if alphabet in _TEST:
        return "test"
    return "validation" if alphabet in _VALIDATION else "train"


def _sizes(counts):
    return ", ".join(f"{counts[name]:,} for {name}" for name in CHARACTERS)
