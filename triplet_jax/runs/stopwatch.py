"""Measures the seconds of a run, over all processes that worked on it one after another."""

import math
import pathlib
import time
from typing import Any

from triplet_jax import errors
from triplet_jax.runs import files

_NAME = "seconds_of_processes"


class Stopwatch:
    """Keeps the seconds of each process of a run in a file.

    A process that is killed loses at most the time since it last called `note`.

    Args:
      path: the file.
      started: the `time.perf_counter` at which this process began.
      every: the least seconds between two writes.

    Raises:
      InputError: the file is damaged.
    """

    def __init__(self, path: pathlib.Path, *, started: float, every: float = 1.0):
        self._path, self._started, self._every = path, started, every
        self._before = read(path)
        self._written = -math.inf

    def note(self, *, now: bool = False) -> None:
        """Writes the time until now, if the last write was `every` seconds ago, or if `now`."""
        seconds = time.perf_counter() - self._started
        if now or seconds - self._written >= self._every:
            self._written = seconds
            write(self._path, [*self._before, seconds])


def write(path: pathlib.Path, seconds: list[float]) -> None:
    """Writes the seconds of each process of a run."""
    files.write_json(path, {_NAME: seconds})


def read(path: pathlib.Path) -> list[float]:
    """Reads the seconds of each process; none if there is no file.

    Raises:
      InputError: the file is damaged.
    """
    if not path.exists():
        return []
    seconds = files.read_json(path, _NAME)[_NAME]
    if not isinstance(seconds, list) or not all(_is_seconds(x) for x in seconds):
        raise errors.InputError(
            f"{path} is damaged: {_NAME} is no list of numbers. Remove the file: the time spent"
            " until now is then unknown, and everything else stays."
        )
    return seconds


def _is_seconds(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x < math.inf
