"""How much of a run's patience its validation scores have left."""

import pathlib

import ml_collections
import numpy as np

from triplet_jax.devices import processes
from triplet_jax.runs import row_files
from triplet_jax.training.patience import Patience


def at(workdir: pathlib.Path, config: ml_collections.FrozenConfigDict, step: int) -> Patience:
    """The patience of a run after a step, by the rows of `metrics.jsonl`.

    Args:
      workdir: of the run.
      config: of the run.
      step: the number of steps that it has taken.
    """
    most = config.train.patience
    if not most:
        return Patience(0)

    def counted():
        patience = Patience(most)
        for row in row_files.read_rows(workdir / "metrics.jsonl"):
            if row["step"] <= step:
                patience.note(row.get("validation/map_at_r"))
        return np.array([patience.best, patience.since])

    best, since = processes.first_reads(counted, like=np.zeros(2))
    return Patience(most, float(best), int(since))
