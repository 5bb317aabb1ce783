"""Scores how hard each training example is, by runs that were trained on all of them."""

import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np

from experiments.config import fields, settings
from experiments.config.datasets import given_labels
from experiments.run import config_json, data_json
from triplet_jax import data, errors
from triplet_jax.curricula import difficulty


def of_runs(
    workdirs: Sequence[pathlib.Path], *, groups: int, moved_to: str | None = None
) -> tuple[difficulty.Scores, data.Dataset]:
    """Scores the training examples of several runs on the same data.

    Args:
      workdirs: of the runs, at least one.
      groups: how many groups confusable classes are put into.
      moved_to: where the data are now, if they were moved.

    Returns:
      The mean difficulty over the runs, with the groups and the embeddings of the first run; and
      the data.

    Raises:
      InputError: a run cannot be read, or has no embeddings, or the runs are on different data.
    """
    scored, datasets = [], set()
    for workdir in workdirs:
        config = config_json.read(workdir)
        everything = data_json.open_data(workdir, config, moved_to)
        datasets.add((_fixed_fields(config), data.fingerprint(everything)))
        if len(datasets) > 1:
            raise errors.InputError(
                f"--runs={','.join(map(str, workdirs))} are of different data sets, or splits, or"
                " label noise: their dataset.* fields differ."
            )
        scored.append(of_run(workdir, config, everything, groups=groups))
    mean = np.mean([scores.difficulty for scores in scored], axis=0).astype(np.float32)
    return scored[0]._replace(difficulty=mean), everything


def _fixed_fields(config):
    """The fields that say what the data are, and what labels training is given."""
    return str(
        [
            (name, value)
            for name, value in settings.flat(config).items()
            if name.startswith("dataset.") and not fields.may_change(name)
        ]
    )


def of_run(
    workdir: pathlib.Path,
    config: ml_collections.FrozenConfigDict,
    everything: data.Dataset,
    *,
    groups: int,
) -> difficulty.Scores:
    """Scores the training examples of one run among each other, by the labels it was given.

    Args:
      workdir: of the run.
      config: of the run.
      everything: all its examples.
      groups: how many groups confusable classes are put into.

    Raises:
      InputError: the run has no embeddings.
    """
    embeddings = data_json.embeddings(workdir, everything)[everything.split == "train"]
    labels = given_labels(config, everything.only("train"))
    return difficulty.Scores(
        1.0 - difficulty.r_precision(embeddings, labels),
        difficulty.confusable(embeddings, labels, groups=groups),
        np.asarray(embeddings, np.float32),
    )
