"""Reads telemetry.jsonl, the arrays about mining that a run wrote."""

import pathlib

import numpy as np

from triplet_jax import errors
from triplet_jax.runs import row_files


def read(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the telemetry of a run.

    Args:
      workdir: the folder of the run.

    Returns:
      Arrays by name, each with a leading axis of rows; `step` holds the step of each row. Empty if
      the run wrote none.

    Raises:
      InputError: the file is damaged.
    """
    rows = row_files.read_rows(pathlib.Path(workdir) / "telemetry.jsonl")
    try:
        return {name: _numbers([row[name] for row in rows]) for name in (rows[0] if rows else ())}
    except (KeyError, ValueError, TypeError) as error:
        raise errors.InputError(
            f"{workdir}/telemetry.jsonl is damaged: its rows differ in their arrays."
        ) from error


def _numbers(values: list) -> np.ndarray:
    """An array, with NaN where a row holds null."""
    found = np.asarray(values)
    return found.astype(np.float64) if found.dtype == object else found
