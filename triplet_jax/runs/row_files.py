"""Files of rows: one JSON object a line, for each step that was logged."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TextIO

from triplet_jax import errors
from triplet_jax.runs import files

Row = dict[str, int | float]
"""What is known of one step: `step`, and numbers by name."""


class RowFile:
    """A file of JSON objects, one a line, each with a `step`.

    Rows after `last_step` are cut off when it is opened: a run that goes on from a
    checkpoint writes them again. A last line that a killed run left half-written goes too.
    Rows up to `last_step` that a damaged file has lost are not written again, and it is said.

    Args:
      path: of the file.
      last_step: of the rows to keep.
      every: names that a row of every so many steps has.
      since: the step after which this is so; a run may have had other intervals before.
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
                print(
                    f"warning: {path} is damaged: it has lost {len(lost)} rows with {name!r}, of"
                    f" steps {lost[0]} to {lost[-1]}. The run goes on without them; to have them,"
                    " stop it, put the file back as it was, and start again."
                )
        # Through a second file, so that no moment loses the rows.
        files.write_text(path, "".join(files.as_json(row) + "\n" for row in self.rows))
        self._path = path
        self._file: TextIO = path.open("a")

    def write(self, row: Row) -> None:
        """Adds one row."""
        self.rows.append(row)
        with files.naming(self._path):
            self._file.write(files.as_json(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        with files.naming(self._path):
            self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a file that `RowFile` wrote; none where there is no file.

    A last line that is no row is the beginning of one, which a kill cut off.

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


def _row(line):
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each step: training and validation are written apart."""
    steps: dict[int, Row] = {}
    for row in rows:
        steps.setdefault(int(row["step"]), {}).update(row)
    return list(steps.values())


def metrics_row(step: int, metrics: Mapping[str, Any]) -> Row:
    """What is logged of a step's scalars."""
    return {"step": step} | {name: float(value) for name, value in sorted(metrics.items())}


def arrays_row(step: int, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What is logged of a step's arrays."""
    return {"step": step} | {name: array.tolist() for name, array in sorted(arrays.items())}


def validation_row(step: int, scores: Mapping[str, float]) -> Row:
    """What is logged of a validation."""
    return {"step": step} | {f"validation/{name}": score for name, score in scores.items()}
