"""The progress bar of a run, or plain lines where the output is no terminal."""

import time

import rich.console
import rich.progress

from triplet_jax.runs.row_files import Row


class Progress:
    """Shows how far a run is: a live bar in a terminal, otherwise a plain line now and then.

    Args:
      steps: the steps of the whole run.
      first_step: the step at which this process starts.
      batch: images per step.
      seconds_between_lines: the least time between two plain lines.
      is_over: whether no step is left, so that none is compiled.
    """

    def __init__(
        self,
        *,
        steps: int,
        first_step: int,
        batch: int,
        seconds_between_lines: float = 5.0,
        is_over: bool = False,
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
                "training",
                total=steps,
                completed=first_step,
                numbers="" if is_over else "compiling",
            )
            self._bar.start()
        elif not is_over:
            print("compiling the first step", flush=True)

    def restart_clock(self, step: int) -> None:
        """Forgets the time until now, so that compiling does not count as training."""
        self._last_step, self._last_time = step, time.perf_counter()

    def update(self, row: Row) -> Row:
        """Shows a row of metrics, and returns the speed since the row before.

        Returns:
          A row with `images_per_second`; empty if no step was taken since, as at the first row,
          whose time went into compiling.
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
        """Stops the bar."""
        if self._bar:
            self._bar.stop()
