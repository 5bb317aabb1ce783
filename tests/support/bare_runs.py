"""The folder of a run that nobody trained: its config, its data, and embeddings without a model."""

import json

import ml_collections
import numpy as np

from experiments.config import completion, datasets
from experiments.run import config_json, data_json
from tests.support.configs import config
from triplet_jax.runs import files

CLASSES, DIM = 5, 3


def write(folder, **fields):
    """A run on 60 examples of features in an .npz file, which several runs may share.

    `fields` are those of the config, as in `configs.config`.
    """
    folder.mkdir()
    random, labels = np.random.default_rng(0), np.arange(60) % CLASSES
    path = folder.parent / "features.npz"
    np.savez(path, x=random.normal(size=(60, 4)).astype(np.float32), y=labels)
    plain = {"dataset__name": "arrays", "dataset__path": str(path), "model__name": "mlp"}
    plain |= {"augment__shift": 0.0, "augment__rotate": 0.0, "augment__scale": 0.0}
    plain |= {"batch__classes": 4, "batch__per_class": 4}
    made = ml_collections.FrozenConfigDict(completion.completed(config(**plain | fields)))
    everything = datasets.dataset(made)
    config_json.remember(folder, made)
    data_json.remember(folder, data_json.content(everything))
    files.write_arrays(
        folder / "embeddings.npz",
        embeddings=(np.eye(CLASSES, DIM)[labels] + random.normal(size=(60, DIM))).astype("f4"),
        labels=labels,
        split=everything.split,
    )
    return folder


def edit(file, **values):
    """Replaces values in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
