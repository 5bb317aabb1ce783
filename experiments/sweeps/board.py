"""The progress of a sweep on the screen."""

import sys
import time

import rich.console
import rich.live
import rich.table

from experiments.sweeps import runs


class Board:
    """Shows all runs in a live table in a terminal; elsewhere prints a line for each that ends.

    Args:
      planned: the runs.
      metric: the score that is shown of a finished one.
      of_validation: whether that is of the validation split, and not of the test split.
    """

    def __init__(self, planned: list[runs.Run], metric: str, *, of_validation: bool = False):
        self._planned, self._metric = planned, metric
        self._score = runs.Run.validation_score if of_validation else runs.Run.score
        self._started = time.monotonic()
        # The steps that each run which had not ended had taken.
        self._at_start = {run.folder: run.last_step for run in planned if not run.has_ended}
        self._told = {run.folder for run in planned} - self._at_start.keys()
        # Fixed now, since an engine may redirect what a run prints.
        self._console = rich.console.Console(file=sys.stdout)
        self._live = None

    def __enter__(self):
        if self._console.is_terminal:
            self._live = rich.live.Live(
                get_renderable=self._table, console=self._console, refresh_per_second=1
            )
            self._live.start()
        return self

    def __exit__(self, *_):
        self.show()
        if self._live:
            self._live.stop()

    def show(self) -> None:
        """Prints the runs that ended since the last call."""
        if self._live:
            return
        for run in self._planned:
            if run.folder not in self._told and run.has_ended:
                self._told.add(run.folder)
                print(f"{self._count()}  {run.name}: {self._cell(run)}{self._eta()}", flush=True)

    def _count(self):
        ended = sum(run.has_ended for run in self._planned)
        return f"{ended:4d}/{len(self._planned)}"

    def _eta(self):
        """Estimates the time left by the steps taken since the start."""
        taken, left = 0, 0
        for run in self._planned:
            if run.folder not in self._at_start:
                continue
            steps = run.config.train.steps
            at = steps if run.has_ended else run.last_step
            taken, left = taken + at - self._at_start[run.folder], left + steps - at
        seconds = (time.monotonic() - self._started) * left / max(taken, 1)
        return f"  ETA {seconds:,.0f} s" if taken and left else ""

    def _cell(self, run):
        state = run.state
        if state == "done":
            return f"{self._metric} {self._score(run, self._metric):.4f}"
        if state == "failed":
            return f"failed: {run.error_file.read_text().splitlines()[0]}"
        step = run.last_step
        return f"{step}/{run.config.train.steps}" if step else "waiting"

    def _table(self):
        seeds = sorted({run.seed for run in self._planned})
        table = rich.table.Table(
            "setting", "arm", *map(str, seeds), caption=f"{self._count()} runs{self._eta()}"
        )
        rows: dict[tuple[str, str], dict[int, str]] = {}
        for run in self._planned:
            cell = self._cell(run).removeprefix(f"{self._metric} ")
            rows.setdefault((run.setting, run.arm), {})[run.seed] = cell[:16]
        for (setting, arm), cells in rows.items():
            table.add_row(setting, arm, *(cells.get(seed, "") for seed in seeds))
        return table
