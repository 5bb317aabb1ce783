"""Reads what a run's folder holds, as arrays and tables."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from triplet_jax import data, errors
from triplet_jax.runs import files, row_files, telemetry_file


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run wrote.

    Args:
      workdir: the run's folder.
      config: the content of `config.json`.
      metrics: a row for each logged step, with the numbers of training and validation; NaN where a
        number was not measured.
      telemetry: arrays with a leading axis of logged steps, as `telemetry.of_batch` describes them;
        empty if there are none.
      embeddings: the embedding of every example.
      labels: the right class of every example.
      split: the split of every example: train, validation or test.
      given: the labels that training saw, which differ from `labels` where noise was planted.
      result: the content of `result.json`; empty if there is none.
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
          InputError: there is no such split, or it is empty.
        """
        errors.check_known("split", split, data.SPLITS)
        found = self.split == split
        if not found.any():
            raise errors.InputError(f"The {split} split of {self.workdir} is empty.")
        return found


def load(workdir: pathlib.Path | str) -> Run:
    """Reads a finished run.

    Args:
      workdir: the run's folder.

    Raises:
      InputError: the folder holds no run or no embeddings, or a file cannot be read.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "config.json").exists():
        raise errors.InputError(
            f"{workdir} holds no run: there is no config.json. Train one into that folder."
        )
    embeddings, labels, split = embeddings_of(workdir)
    result = workdir / "result.json"
    return Run(
        workdir=workdir,
        config=files.read_json(workdir / "config.json"),
        metrics=pd.DataFrame(row_files.merged(row_files.read_rows(workdir / "metrics.jsonl"))),
        telemetry=telemetry_file.read(workdir),
        embeddings=embeddings,
        labels=labels,
        split=split,
        given=_given(workdir, labels),
        result=files.read_json(result) if result.exists() else {},
    )


def embeddings_of(
    workdir: pathlib.Path,
) -> tuple[Float[np.ndarray, "examples dim"], Int[np.ndarray, "examples"], np.ndarray]:
    """Reads the embeddings of a finished run, with their labels and splits.

    Args:
      workdir: the run's folder.

    Raises:
      InputError: there are none, or the file is damaged.
    """
    path = workdir / "embeddings.npz"
    if not path.exists():
        raise errors.InputError(
            f"{workdir} holds no embeddings.npz: the run is not finished, or was not evaluated."
            " Train it to its end, or evaluate it."
        )
    arrays = files.read_arrays(str(path), ("embeddings", "labels", "split"))
    kinds = (np.floating, 2), (np.integer, 1), (np.str_, 1)
    for array, (kind, ndim) in zip(arrays, kinds, strict=True):
        if (
            not np.issubdtype(array.dtype, kind)
            or array.ndim != ndim
            or len(array) != len(arrays[0])
        ):
            raise errors.InputError(
                f"path={str(path)!r} is damaged: its arrays do not fit together."
            )
    return tuple(arrays)


def _given(
    workdir: pathlib.Path, labels: Int[np.ndarray, "examples"]
) -> Int[np.ndarray, "examples"]:
    """The labels that training saw."""
    path = workdir / "label_noise.npz"
    if not path.exists():
        return labels
    positions, given = files.read_arrays(str(path), ("positions", "given"))
    found = labels.copy()
    try:
        found[positions] = given
    except (IndexError, ValueError, TypeError) as error:
        raise errors.InputError(f"{path} is damaged: it does not fit the examples.") from error
    return found
