"""What a run's folder holds, as arrays and tables."""

import dataclasses
import json
import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from triplet_jax import data, errors, logging, telemetry


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as its files tell it.

    Args:
      workdir: its folder.
      config: `config.json`, sections of fields.
      metrics: a row for each step with metrics, numbers of training and validation together;
        NaN where a number was not taken.
      telemetry: arrays with a leading axis of rows, as `telemetry.of_batch` describes them;
        empty where `log.telemetry_every` was 0.
      embeddings: of all examples.
      labels: their right classes.
      split: of each, one of train, validation, test.
      given: the labels that training was given; others than `labels` where noise was planted.
      result: `result.json`.
    """

    workdir: pathlib.Path
    config: dict
    metrics: pd.DataFrame
    telemetry: dict[str, np.ndarray]
    embeddings: Float[np.ndarray, "examples dim"]
    labels: Int[np.ndarray, "examples"]
    split: np.ndarray
    given: Int[np.ndarray, "examples"]
    result: dict

    def where(self, split: str) -> Bool[np.ndarray, "examples"]:
        """Which examples belong to a split.

        Raises:
          InputError: it is no name of one, or it is empty.
        """
        errors.check_known("split", split, data.SPLITS)
        found = self.split == split
        if not found.any():
            raise errors.InputError(f"The {split} split of {self.workdir} is empty.")
        return found


def load(workdir: pathlib.Path | str) -> Run:
    """Reads a finished run.

    Raises:
      InputError: the folder holds no run, or no embeddings, or a file of it cannot be read.
    """
    workdir = pathlib.Path(workdir)
    config = _json(workdir / "config.json")
    if config is None:
        raise errors.InputError(
            f"{workdir} holds no run: there is no config.json. Train one with"
            f" python -m experiments.train --config=configs/digits.py --workdir={workdir}"
        )
    again = f"python -m experiments.evaluate --workdir={workdir}"
    if not (workdir / "embeddings.npz").exists():
        raise errors.InputError(
            f"{workdir} holds no embeddings.npz, so the run is not finished, or was not evaluated."
            f" Run the command that trains it once more, or {again}"
        )
    names = ("embeddings", "labels", "split")
    try:
        arrays = data.read_arrays(str(workdir / "embeddings.npz"), names, field="workdir")
    except errors.InputError as error:
        raise errors.InputError(f"{error} To write the file anew: {again}") from error
    embeddings, labels, split = arrays
    return Run(
        workdir=workdir,
        config=config,
        metrics=pd.DataFrame(logging.merged(logging.read_rows(workdir / "metrics.jsonl"))),
        telemetry=telemetry.read(workdir),
        embeddings=embeddings,
        labels=labels,
        split=split,
        given=_given(workdir, labels),
        result=_json(workdir / "result.json") or {},
    )


def _json(path):
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except json.JSONDecodeError as error:
        raise errors.InputError(f"{path} cannot be read: {error}") from error


def _given(workdir, labels):
    path = workdir / "label_noise.npz"
    if not path.exists():
        return labels
    positions, given = data.read_arrays(str(path), ("positions", "given"), field="workdir")
    found = labels.copy()
    found[positions] = given
    return found
