"""The study that others list their differences from: a search for the fields that score best.

Studies are data, as configs are; `experiments.tune` carries them out.
`experiments/config/fields/tune.py` declares every field of a study, and docs/fields.md lists them.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments.config import defaults, fields


def get_config(run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A study of the config `run`."""
    study = defaults.of_section(fields.TUNE)
    study.run = run  # --config.run.FIELD changes it for all trials
    return study


def between(
    low: float, high: float, *, log: bool = False, step: float | None = None
) -> dict[str, Any]:
    """The numbers from `low` to `high`, both included; whole ones if both are.

    Args:
      low: the lowest.
      high: the highest.
      log: whether they are drawn by their logarithm.
      step: how far apart they are; None for any number of the range.
    """
    return {"low": low, "high": high, "log": log, "step": step}


def one_of(*values: Any) -> dict[str, Any]:
    """A few values of a field: names, numbers, or lists."""
    return {"values": values}


def alternatives(**of: Mapping[str, Any]) -> dict[str, Any]:
    """A few ways to set several fields, each by its name: `hard={"mining.miner": "batch_hard"}`."""
    return {"alternatives": of}
