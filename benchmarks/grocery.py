"""The photographs of the Grocery Store data set, as `dataset.name` takes them.

    --config.dataset.name=benchmarks.grocery:zero_shot --config.dataset.path=FOLDER

FOLDER holds `train`, `validation` and `test`, each with a folder of photographs for every class
(Klasson et al. 2019, https://arxiv.org/abs/1901.00711).
"""

import dataclasses
import pathlib

import numpy as np

from experiments.config import datasets
from triplet_jax import data
from triplet_jax.data import images

TRAINED = 25
"""The classes that are learnt from, the first by name; the others are searched."""


def zero_shot(c) -> data.Dataset:
    """The first 25 classes to learn from, all photographs of the other 25 to be judged by."""
    everything = _everything(c)
    split = np.where(everything.labels < TRAINED, "train", "test")
    return dataclasses.replace(everything, split=split)


def tuning(c) -> data.Dataset:
    """The same 25 classes to learn from and to choose settings by, none of those of the test."""
    everything = _everything(c)
    split = np.where(everything.labels < TRAINED - TRAINED // 3, "train", "test")
    return dataclasses.replace(everything, split=split).take(
        np.flatnonzero(everything.labels < TRAINED)
    )


def official(c) -> data.Dataset:
    """The splits as they are published: all classes are in each, photographed in other shops."""
    return _everything(c)


def _everything(c):
    files = sorted(pathlib.Path(c.path).glob("*/*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    return data.Dataset(
        inputs=images.Images([str(file) for file in files], datasets.image_form(c)),
        labels=np.array([classes.index(file.parent.name) for file in files], np.int32),
        split=np.array([file.parts[-3] for file in files]),
        class_names=tuple(classes),
    )
