"""What the backbone's features are worth before any training, and a run on these features."""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import PyTree

from experiments.config import datasets, encoders, preprocessing
from experiments.run import embedding_metrics
from experiments.run.setup import Setup
from triplet_jax.runs import files

FILE = "frozen_features.json"


def on_features(run: Setup, variables: PyTree) -> Setup:
    """The run with the features of all examples, if its head alone is trained; else the run.

    Args:
      run: what it trains with.
      variables: of its encoder.
    """
    if not encoders.keeps_features(run.config):
        return run
    return dataclasses.replace(run, features=run.backbone_features.of_all(variables))


def scores(run: Setup, variables: PyTree) -> dict[str, dict[str, float]] | None:
    """Retrieval by the backbone's features alone, on validation and test; None without weights.

    Args:
      run: what it trains with.
      variables: of its encoder before the first step.
    """
    everything = run.everything
    if not preprocessing.has_weights(run.config) or everything.pair_shapes:
        return None
    found = {}
    for split in ("validation", "test"):
        places = np.flatnonzero(everything.split == split)
        among = everything.take(places)
        if datasets.can_score(run.config, among):
            if run.features is None:
                features = run.backbone_features.of_split(variables, split)
            else:
                features = run.features[places]
            found[split] = embedding_metrics.retrieval(run.config, among, features)
    return found


def remember(workdir: pathlib.Path, found: dict[str, dict[str, float]] | None) -> None:
    """Keeps the scores, if there are any, in a run's folder."""
    if found is not None:
        files.write_json(workdir / FILE, found)


def recorded(workdir: pathlib.Path) -> dict[str, dict[str, float]] | None:
    """The scores in a run's folder; None if there are none.

    Raises:
      InputError: the file is damaged.
    """
    path = workdir / FILE
    return files.read_json(path) if path.exists() else None


def describe(found: dict[str, dict[str, float]]) -> str:
    """A line for the screen."""
    parts = [
        f"MAP@R {score['map_at_r']:.3f} and P@1 {score['precision_at_1']:.3f} on {split}"
        for split, score in found.items()
    ]
    return f"frozen  the features alone, before training: {'; '.join(parts)}"
