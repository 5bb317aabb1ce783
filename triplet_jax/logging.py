"""What a run writes down while it trains: files of numbers, and a line on the screen."""

import json
import math
import pathlib
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TextIO

import numpy as np
import rich.console
import rich.progress

from triplet_jax import errors, writing

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
        write_text(path, "".join(as_json(row) + "\n" for row in self.rows))
        self._path = path
        self._file: TextIO = path.open("a")

    def write(self, row: Row) -> None:
        """Adds one row."""
        self.rows.append(row)
        with writing.naming(self._path):
            self._file.write(as_json(row) + "\n")
            self._file.flush()

    def close(self) -> None:
        with writing.naming(self._path):
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


def read_json(path: pathlib.Path, *names: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      InputError: it cannot be read, is no object, or lacks one of the names.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise errors.InputError(f"{path} cannot be read as JSON: {error}") from error
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if not isinstance(content, dict) or missing:
        raise errors.InputError(
            f"{path} is damaged: it is no JSON object" + (f" with {missing}." if missing else ".")
        )
    return content


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


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a whole file of UTF-8 or none; see `writing.whole_file`."""
    with writing.whole_file(path) as file:
        file.write(text.encode())


def write_arrays(path: pathlib.Path, **arrays) -> None:
    """Writes a whole .npz file or none."""
    with writing.whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def write_json(path: pathlib.Path, content: dict | list) -> None:
    """Writes a whole file or none."""
    write_text(path, as_json(content, indent=2) + "\n")


def as_json(content: Any, *, indent: int | None = None) -> str:
    """JSON that any program reads: NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False)


def _without_nan(content):
    if isinstance(content, Mapping):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


class TensorBoard:
    """The same rows for TensorBoard.

    Args:
      folder: of the event files.
      last_step: rows after it are hidden; a run that goes on writes them again.

    Raises:
      InputError: tensorboardX is not installed.
    """

    def __init__(self, folder: pathlib.Path, *, last_step: int):
        try:
            import tensorboardX
        except ImportError as error:
            raise errors.InputError(
                "log.tensorboard=True needs tensorboardX: pip install tensorboardX, or set"
                " log.tensorboard=False."
            ) from error
        self._writer = tensorboardX.SummaryWriter(
            str(folder), purge_step=last_step + 1 if last_step else None
        )

    def write(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class Progress:
    """Where the run stands: a live bar in a terminal, else a plain line now and then.

    Args:
      steps: of the whole run.
      first_step: where this process starts.
      batch: images a step.
      seconds_between_lines: at least, where the output is no terminal.
    """

    def __init__(
        self, *, steps: int, first_step: int, batch: int, seconds_between_lines: float = 5.0
    ):
        self._steps, self._batch = steps, batch
        self._between = seconds_between_lines
        self._last_step, self._last_time = first_step, time.perf_counter()
        self._last_line = -float("inf")
        self._console = rich.console.Console()
        self._bar = None
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                "{task.description}",
                rich.progress.BarColumn(),
                "step {task.completed}/{task.total}  {task.fields[numbers]}  ETA",
                rich.progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(
                "training", total=steps, completed=first_step, numbers="compiling"
            )
            self._bar.start()
        else:
            print("compiling the first step", flush=True)

    def restart_clock(self, step: int) -> None:
        """Forgets the time until now, so that compiling does not count as training."""
        self._last_step, self._last_time = step, time.perf_counter()

    def update(self, row: Row) -> Row:
        """Shows a row of metrics; returns one of the images a second since the one before.

        It is empty where there was no step since, as at the first, whose time is compiling.
        """
        now = time.perf_counter()
        step = row["step"]
        speed = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_step, self._last_time = step, now
        numbers, eta, timing = f"loss {row['loss']:.4f}", "", {}
        if "active_fraction" in row:
            numbers += f"  active {row['active_fraction']:.1%}"
        if speed:
            images = speed * self._batch
            numbers += f"  {images:,.0f} img/s"
            eta = f"  ETA {(self._steps - step) / speed:,.0f} s"
            timing = {"images_per_second": images}
        if self._bar:
            self._bar.update(self._task, completed=step, numbers=numbers)
        elif now - self._last_line >= self._between or step == self._steps:
            self._last_line = now
            print(f"step {step}/{self._steps}  {numbers}{eta}", flush=True)
        return timing

    def say(self, text: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._bar:
            self._console.print(text, highlight=False)
        else:
            print(text, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
