"""What is written down of a run while it trains, and said of it."""

from collections.abc import Callable, Mapping
from typing import Any

from triplet_jax.runs import health, row_files, trackers
from triplet_jax.runs.progress import Progress
from triplet_jax.runs.stopwatch import Stopwatch


class Journal:
    """The files and the screen of a run.

    Args:
      rows: where metrics go.
      timing: where speed goes: it depends on the machine, and is not among the metrics.
      telemetry: where the arrays of a step go, or None.
      tensorboard: or None.
      progress: the screen.
      collapsed_loss: the loss of an embedding that maps everything to one point.
      advice: what helps a run whose embedding has collapsed; called once one has.
      stopwatch: which notes the time at every row, or None.
    """

    def __init__(
        self,
        *,
        rows: row_files.RowFile,
        timing: row_files.RowFile,
        telemetry: row_files.RowFile | None,
        tensorboard: trackers.TensorBoard | None,
        progress: Progress,
        collapsed_loss: float,
        advice: Callable[[], str],
        stopwatch: Stopwatch | None = None,
    ):
        self._rows, self._timing, self._telemetry = rows, timing, telemetry
        self._tensorboard, self._progress = tensorboard, progress
        self._collapsed_loss, self._advice = collapsed_loss, advice
        self._stopwatch = stopwatch
        self._warned = False

    def compiled(self, step: int) -> None:
        """The time until now was not training."""
        self._progress.restart_clock(step)

    def arrays(self, step: int, arrays: Mapping[str, Any]) -> None:
        """The telemetry of a step."""
        if self._telemetry:
            self._telemetry.write(row_files.arrays_row(step, arrays))

    def metrics(self, row: row_files.Row) -> None:
        """The scalars of a step; warns once of an embedding that collapses."""
        self._rows.write(row)
        if self._stopwatch:
            self._stopwatch.note()
        timing = self._progress.update(row)
        if timing:
            self._timing.write({"step": row["step"]} | timing)
        if self._tensorboard:
            self._tensorboard.write(row | timing)
        recent = [logged for logged in self._rows.rows[-2 * health.ROWS :] if "loss" in logged]
        seen = health.collapse(recent, level=self._collapsed_loss)
        if seen and not self._warned:
            self._progress.say(
                f"warning: step {row['step']}: The embedding has collapsed: {seen}."
                f" {self._advice()}"
            )
        self._warned = seen is not None

    def scores(self, step: int, scores: Mapping[str, float], *, shown: str) -> None:
        """Those of a validation; the one that is shown is said too."""
        row = row_files.validation_row(step, scores)
        self._rows.write(row)
        if self._tensorboard:
            self._tensorboard.write(row)
        self._progress.say(f"step {step}: validation {shown} {scores[shown]:.4f}")

    def close(self) -> None:
        writers = (self._rows, self._timing, self._telemetry, self._tensorboard, self._progress)
        for writer in filter(None, writers):
            writer.close()
