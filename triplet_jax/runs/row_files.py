"""Files of rows, such as metrics.jsonl: one JSON object a line for each step that was logged."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TextIO

from triplet_jax import errors
from triplet_jax.runs import files

Row = dict[str, int | float]
"""One step: `step`, and numbers by name."""


class RowFile:
    """A file of JSON objects, one a line, each with a `step`.

    Opening it cuts off the rows after `last_step`, since a run that goes on from a checkpoint
    writes them again, and a last line that a killed run left half-written. A warning tells of rows
    up to `last_step` that a damaged file has lost; they are not written again.

    Args:
      path: the file.
      last_step: the last step whose rows are kept.
      every: by name, how many steps lie between two rows that have this number. They say which
        rows are lost.
      since: the step after which `every` holds; the run may have had other intervals before.

    Raises:
      InputError: a line other than the last is no row.
      OSError: the file cannot be written.
    """

    def __init__(
        self,
        path: pathlib.Path,
        *,
        last_step: int,
        every: Mapping[str, int] = MappingProxyType({}),
        since: int = 0,
    ):
        self.rows = [row for row in read_rows(path) if row["step"] <= last_step]
        for name, steps in every.items():
            there = {row["step"] for row in self.rows if name in row}
            due = [step for step in range(steps, last_step + 1, steps) if step > since]
            lost = [step for step in due if step not in there]
            if lost:
                rows = f"the row with {name!r} of step {lost[0]}"
                if len(lost) > 1:
                    rows = f"{len(lost)} rows with {name!r}, of steps {lost[0]} to {lost[-1]}"
                print(
                    f"warning: {path} is damaged: it has lost {rows}. The run goes on without; to"
                    " have all rows, stop it, put the file back as it was, and start again."
                )
        # In one replacement, so that a kill cannot lose the rows.
        files.write_text(path, "".join(files.as_json(row) + "\n" for row in self.rows))
        self._path = path
        self._file: TextIO = path.open("a")

    def write(self, row: Row) -> None:
        """Adds one row.

        Raises:
          OSError: the file cannot be written, as on a full disk.
        """
        self.rows.append(row)
        with files.naming(self._path):
            self._file.write(files.as_json(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        with files.naming(self._path):
            self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the rows that `RowFile` wrote; none if there is no file.

    A last line that is no row is left out: a killed run wrote the beginning of a row.

    Raises:
      InputError: another line is no row.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise errors.InputError(
                f"{path} is damaged: line {number} of {len(lines)} is no row of numbers. Put back"
                " the file as it was, or remove that line."
            )
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None if it is no JSON object with a `step`."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def merged(rows: Iterable[Row]) -> list[Row]:
    """Joins the rows of each step, since training and validation write one each.

    >>> merged([{"step": 1, "loss": 0.5}, {"step": 1, "validation/map_at_r": 0.9}])
    [{'step': 1, 'loss': 0.5, 'validation/map_at_r': 0.9}]
    """
    steps: dict[int, Row] = {}
    for row in rows:
        steps.setdefault(int(row["step"]), {}).update(row)
    return list(steps.values())


def metrics_row(step: int, metrics: Mapping[str, Any]) -> Row:
    """Makes the row of a training step."""
    return {"step": step} | {name: float(value) for name, value in sorted(metrics.items())}


def arrays_row(step: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the row of a step's telemetry."""
    return {"step": step} | {name: array.tolist() for name, array in sorted(arrays.items())}


def validation_row(step: int, scores: Mapping[str, float]) -> Row:
    """Makes the row of a validation; names get the prefix `validation/`."""
    return {"step": step} | {f"validation/{name}": score for name, score in scores.items()}
