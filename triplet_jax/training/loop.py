"""The loop around the step: log, check, evaluate, save, and stop when asked to."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from triplet_jax.devices.signals import Stop
from triplet_jax.runs import health
from triplet_jax.runs.journal import Journal
from triplet_jax.runs.row_files import Row, metrics_row
from triplet_jax.training.patience import Patience
from triplet_jax.training.train_state import TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a run is and what happens how often, in steps."""

    steps: int
    log_every: int
    telemetry_every: int
    evaluate_every: int
    """A checkpoint is saved at every evaluation."""

    def logs(self, step: int) -> bool:
        """Whether the scalars of this step are written."""
        return step % self.log_every == 0 or step == self.steps

    def evaluates(self, step: int) -> bool:
        """Whether the state after this step is scored and saved."""
        return step % self.evaluate_every == 0 or step == self.steps

    def measures(self, step: int) -> bool:
        """Whether the telemetry of this step is written."""
        return self.telemetry_every > 0 and step % self.telemetry_every == 0


def train(
    state: TrainState,
    take_step: Callable[[TrainState], tuple[TrainState, dict[str, Any]]],
    *,
    schedule: Schedule,
    score: Callable[[TrainState], dict[str, float]],
    score_name: str,
    save: Callable[[int, TrainState, float | None], None],
    journal: Journal | None,
    stop: Stop,
    patience: Patience,
) -> TrainState:
    """Trains until the schedule or the patience ends, or somebody asks to stop.

    Everything written depends on the state alone, so that a run that was killed and taken
    up again leaves the same rows and the same parameters as one that was not. Wall-clock
    speed does not, and has a file of its own.

    Args:
      state: where to start.
      take_step: one step over all devices.
      schedule: how long the run is, and what happens how often.
      score: evaluates a state on the validation split; empty where that has no score.
      score_name: the score by which the best checkpoint is kept.
      save: keeps a step, its state and its score, or None where there is no score.
      journal: what writes; None in a process that writes nothing.
      stop: says whether to stop.
      patience: counts the evaluations without a better score.

    Returns:
      The last state.

    Raises:
      NotFiniteError: a number is NaN or infinite; no checkpoint was made of such a state.
    """
    step = first_step = int(state.step)
    waiting: list[tuple[int, Any]] = []
    saved = first_step or None
    one_at_a_time = jax.process_count() > 1 and jax.default_backend() == "cpu"
    while step < schedule.steps and not (patience.is_over or stop.before(step)):
        state, metrics = take_step(state)
        arrays = metrics.pop("telemetry", None)
        waiting.append((step, metrics))
        step += 1
        if one_at_a_time:  # gloo can wait for ever where two steps are under way
            jax.block_until_ready(metrics)
        if journal and arrays is not None and schedule.measures(step):
            journal.arrays(step, jax.device_get(arrays))
        if step == first_step + 1:
            jax.block_until_ready(metrics)
            if journal:
                journal.compiled(step)
        logs, evaluates = schedule.logs(step), schedule.evaluates(step)
        if not (logs or evaluates or stop.signal):
            continue
        row = _finite_rows(waiting)[-1]
        waiting = []
        if logs and journal:
            journal.metrics(row)
        if evaluates:
            scores = score(state)
            patience.note(scores.get(score_name))
            if scores and journal:
                journal.scores(step, scores, shown=score_name)
            save(step, state, scores.get(score_name))
            saved = step
    if step < schedule.steps and step != saved:
        _finite_rows(waiting)
        save(step, state, None)
    return state


def _finite_rows(waiting: Sequence[tuple[int, Any]]) -> list[Row]:
    rows = []
    for step, metrics in jax.device_get(list(waiting)):
        row = metrics_row(step + 1, metrics)
        health.check_finite(row)
        rows.append(row)
    return rows
