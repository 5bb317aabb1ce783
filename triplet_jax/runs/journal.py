"""The journal of a run while it trains: writes its metrics to files, and reports on the screen."""

from collections.abc import Callable, Mapping
from typing import Any

from triplet_jax.runs import health, row_files
from triplet_jax.runs.progress import Progress
from triplet_jax.runs.stopwatch import Stopwatch
from triplet_jax.runs.trackers.background import Trackers


class Journal:
    """Sends what a run reports to its files and to the screen.

    Args:
      rows: the file of metrics.
      timing: the file of speeds, which depend on the machine and are no metrics.
      telemetry: the file of arrays about mining, or None.
      trackers: get the metrics and speeds too; whoever opened them ends them.
      progress: the screen.
      collapsed_loss: the loss of an embedding that maps all inputs to one point.
      advice: gives the advice for a run whose embedding has collapsed.
      stopwatch: notes the time at every row, or None.
    """

    def __init__(
        self,
        *,
        rows: row_files.RowFile,
        timing: row_files.RowFile,
        telemetry: row_files.RowFile | None,
        trackers: Trackers,
        progress: Progress,
        collapsed_loss: float,
        advice: Callable[[], str],
        stopwatch: Stopwatch | None = None,
    ):
        self._rows, self._timing, self._telemetry = rows, timing, telemetry
        self._trackers, self._progress = trackers, progress
        self._collapsed_loss, self._advice = collapsed_loss, advice
        self._stopwatch = stopwatch
        self._warned = False

    def compiled(self, step: int) -> None:
        """Says that the step has compiled: the time until now was not training."""
        self._progress.restart_clock(step)

    def arrays(self, step: int, arrays: Mapping[str, Any]) -> None:
        """Writes the telemetry of a step."""
        if self._telemetry:
            self._telemetry.write(row_files.arrays_row(step, arrays))

    def metrics(self, row: row_files.Row) -> None:
        """Writes and shows the metrics of a step, and warns once if the embedding has collapsed."""
        self._rows.write(row)
        if self._stopwatch:
            self._stopwatch.note()
        timing = self._progress.update(row)
        if timing:
            self._timing.write({"step": row["step"]} | timing)
        self._trackers.write(row | timing)
        recent = [logged for logged in self._rows.rows[-2 * health.ROWS :] if "loss" in logged]
        seen = health.collapse(recent, level=self._collapsed_loss)
        if seen and not self._warned:
            self._progress.say(
                f"warning: step {row['step']}: The embedding has collapsed: {seen}."
                f" {self._advice()}"
            )
        self._warned = seen is not None

    def scores(self, step: int, scores: Mapping[str, float], *, shown: str) -> None:
        """Writes the scores of a validation, and shows the one named `shown`."""
        row = row_files.validation_row(step, scores)
        self._rows.write(row)
        self._trackers.write(row)
        self._progress.say(f"step {step}: validation {shown} {scores[shown]:.4f}")

    def close(self) -> None:
        """Closes the files and the progress bar."""
        writers = (self._rows, self._timing, self._telemetry, self._progress)
        for writer in filter(None, writers):
            writer.close()
