"""What a tracker does, and what it is told of the run that it shows."""

import dataclasses
import importlib
import pathlib
import types
from collections.abc import Mapping
from typing import Any, Protocol

from triplet_jax import errors
from triplet_jax.runs.row_files import Row

PROJECT = "triplet_jax"
"""What runs that belong to no group are filed under."""
PICTURES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class Place:
    """The run that a tracker is to show.

    Args:
      folder: of the run.
      name: of the run.
      group: the name of the runs that it belongs to, such as those of a sweep; empty for none.
      last_step: the step from which the run goes on; 0 for a new one.
      known: what the tracker remembered of this run; empty for a new one.
    """

    folder: pathlib.Path
    name: str
    group: str = ""
    last_step: int = 0
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """Shows one run. It is made from a `Place`, and may raise any error at any time."""

    known: Mapping[str, str]
    """What it needs to go on with the same run later."""

    def config(self, values: Mapping[str, Any]) -> None:
        """Takes the fields of the run's config, by their dotted names."""

    def write(self, row: Row) -> None:
        """Takes the numbers of a row at its step."""

    def file(self, path: pathlib.Path) -> None:
        """Takes a picture or another file."""

    def end(self, ending: str) -> None:
        """Ends what it does; `ending` is "finished", "stopped" (to go on later) or "failed"."""


def needed(package: str, extra: str) -> types.ModuleType:
    """Imports the package of a tracker.

    Args:
      package: its name.
      extra: the tracker, which is also the name of the extra that installs the package.

    Raises:
      InputError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise errors.InputError(
            f"The tracker {extra!r} needs {package}, which cannot be imported ({error}): pip"
            f" install 'triplet_jax[{extra}]', or in a clone pip install -e '.[{extra}]'."
        ) from error


def numbers(row: Row) -> dict[str, float]:
    """The numbers of a row without its step."""
    return {name: float(value) for name, value in row.items() if name != "step"}
