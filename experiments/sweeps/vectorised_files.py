"""What runs that are trained together leave: checkpoints of all, and the rows of each."""

import contextlib
from collections.abc import Sequence

import jax
import numpy as np

from experiments.run import journals
from experiments.sweeps import runs
from experiments.sweeps.vectorised_step import state_of
from triplet_jax.runs import health, row_files
from triplet_jax.runs.trackers.background import Trackers


class Kept:
    """What a group saves: the states of all runs, and the best of each if a config asks for it."""

    def __init__(self, state, config, tree=None):
        wants_best = config.evaluate.checkpoint == "best"
        count = len(jax.tree.leaves(state.params)[0])
        fresh = {
            "state": state,
            "scores": np.full(count, -np.inf, np.float32),
            "best": state.replace(step=np.zeros(count, np.int32)) if wants_best else None,
            "best_scores": np.full(count, -np.inf, np.float32),
        }
        self.tree = fresh if tree is None else tree

    @property
    def state(self):
        return self.tree["state"]

    @property
    def step(self) -> int:
        return int(self.tree["state"].step)

    def update(self, step, state, scores):
        state, scores = jax.device_get(state), scores.astype(np.float32)
        tree = self.tree | {"state": state, "scores": scores}
        if tree["best"] is not None:
            # Of equals the later one, as a run alone keeps it, and without scores the last.
            better = (scores >= tree["best_scores"]) | ~np.isfinite(scores)
            now = state.replace(step=np.full(len(scores), step, np.int32))
            tree["best"] = jax.tree.map(
                lambda new, old: np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old),
                now,
                jax.device_get(tree["best"]),
            )
            tree["best_scores"] = np.where(better, scores, tree["best_scores"])
        self.tree = tree

    def of_run(self, i):
        """The step, the state and the score of each checkpoint of a run; the last one last."""
        states = [(self.step, state_of(self.state, i), float(self.tree["scores"][i]))]
        if self.tree["best"] is not None:
            best = jax.tree.map(lambda x: x[i], self.tree["best"])
            if int(best.step) != self.step:
                states.insert(0, (int(best.step), best, float(self.tree["best_scores"][i])))
        return states


class Logger:
    """Writes the files of one run, until it fails; writes nothing of a run that has ended."""

    def __init__(
        self,
        run: runs.Run,
        first_step: int,
        validates: bool,
        trackers: Trackers,
        resources: contextlib.ExitStack,
    ):
        self._run, self._files, self._trackers = run, {}, trackers
        self._over = run.has_ended
        opened = {"first_step": first_step, "validates": validates}
        for name in () if self._over else ("metrics", "telemetry"):
            file = journals.open_rows(run.config, run.folder, name, **opened)
            resources.callback(file.close)
            self._files[name] = file

    def metrics(self, rows: Sequence[tuple[int, dict]], *, write: bool) -> None:
        """Checks all rows, and writes the last one; a run with a number that is not finite fails.

        Args:
          rows: pairs of a step and its metrics.
          write: whether the last row is written.
        """
        for step, numbers in rows:
            row = row_files.metrics_row(step, numbers)
            try:
                health.check_finite(row)
            except health.NotFiniteError as error:
                if not self._over:
                    self._run.fail(str(error))
                    self._trackers.end("failed")
                self._over = True
        if write:
            self._write("metrics", row)

    def validation(self, step: int, scores: dict[str, float]) -> None:
        if scores:
            self._write("metrics", row_files.validation_row(step, scores))

    def telemetry(self, step: int, arrays: dict) -> None:
        self._write("telemetry", row_files.arrays_row(step, arrays))

    def _write(self, name, row):
        if not self._over:
            self._files[name].write(row)
            if name == "metrics":
                self._trackers.write(row)
