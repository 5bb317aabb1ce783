"""The loop around the step: log, check, evaluate, save, and stop when asked to."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from triplet_jax import health
from triplet_jax.checkpoint import Checkpoints
from triplet_jax.logging import (
    Progress,
    Row,
    RowFile,
    TensorBoard,
    arrays_row,
    metrics_row,
    validation_row,
)
from triplet_jax.train_step import TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a run is and what happens how often, in steps."""

    steps: int
    log_every: int
    telemetry_every: int
    evaluate_every: int
    """A checkpoint is saved at every evaluation."""


class Stop:
    """Whether somebody asked the run to stop, by Ctrl-C or SIGTERM."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Takes the two signals; a second Ctrl-C interrupts at once."""

        def ask(number, frame):
            if self.signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)

        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(
    state: TrainState,
    take_step: Callable[[TrainState], tuple[TrainState, dict[str, Any]]],
    *,
    schedule: Schedule,
    score: Callable[[TrainState], dict[str, float]],
    score_name: str,
    collapsed_loss: float,
    checkpoints: Checkpoints,
    rows: RowFile,
    timing: RowFile,
    telemetry: RowFile | None,
    tensorboard: TensorBoard | None,
    progress: Progress,
    stop: Stop,
) -> TrainState:
    """Trains until the schedule ends or somebody asks to stop.

    Everything written depends on the state alone, so that a run that was killed and taken
    up again leaves the same rows and the same parameters as one that was not. Wall-clock
    speed, which does not, has a file of its own.

    Args:
      state: where to start.
      take_step: one step over all devices.
      schedule: how long, and what how often.
      score: evaluates a state on the validation split; empty where there is none.
      score_name: the number in it by which the best checkpoint is kept.
      collapsed_loss: the loss of an embedding that maps everything to one point.
      checkpoints: where states are saved.
      rows: where metrics are written.
      timing: where speed is written.
      telemetry: where the arrays of a step are written, or None.
      tensorboard: or None.
      progress: the screen.
      stop: whether to stop.

    Returns:
      The last state.

    Raises:
      NotFiniteError: a number is NaN or infinite; no checkpoint was made of such a state.
    """
    step = first_step = int(state.step)
    warned = False
    waiting: list[tuple[int, Any]] = []
    while step < schedule.steps and stop.signal is None:
        state, metrics = take_step(state)
        arrays = metrics.pop("telemetry", None)
        waiting.append((step, metrics))
        step += 1
        if telemetry and step % schedule.telemetry_every == 0:
            telemetry.write(arrays_row(step, jax.device_get(arrays)))
        if step == first_step + 1:
            jax.block_until_ready(metrics)
            progress.restart_clock(step)
        logs = step % schedule.log_every == 0 or step == schedule.steps
        evaluates = step % schedule.evaluate_every == 0 or step == schedule.steps
        if not (logs or evaluates or stop.signal):
            continue
        row = _finite_rows(waiting)[-1]
        waiting = []
        if logs:
            rows.write(row)
            speed = progress.update(row)
            timing.write({"step": step, "images_per_second": speed})
            if tensorboard:
                tensorboard.write(row | {"images_per_second": speed})
            recent = [logged for logged in rows.rows[-2 * health.ROWS :] if "loss" in logged]
            advice = health.collapse(recent, level=collapsed_loss)
            if advice and not warned:
                progress.say(f"warning: step {step}: {advice}")
            warned = advice is not None
        if evaluates:
            scores = score(state)
            if scores:
                scored = validation_row(step, scores)
                rows.write(scored)
                if tensorboard:
                    tensorboard.write(scored)
                progress.say(f"step {step}: validation {score_name} {scores[score_name]:.4f}")
            checkpoints.save(step, state, scores.get(score_name))
    if stop.signal is not None and step < schedule.steps and step not in checkpoints.steps:
        checkpoints.save(step, state)
    return state


def _finite_rows(waiting: Sequence[tuple[int, Any]]) -> list[Row]:
    rows = []
    for step, metrics in jax.device_get(list(waiting)):
        row = metrics_row(step + 1, metrics)
        health.check_finite(row)
        rows.append(row)
    return rows
