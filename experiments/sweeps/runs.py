"""A run of a sweep, and where it stands, told from its files alone."""

import dataclasses
import math
import pathlib

import ml_collections

from triplet_jax import errors
from triplet_jax.runs import files, row_files, stopwatch


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm in one setting with one seed.

    Args:
      arm: its name.
      setting: its name, empty where there is only one.
      seed: the seed.
      config: of the run.
      workdir: of the sweep.
    """

    arm: str
    setting: str
    seed: int
    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        """The workdir of the run."""
        return self.workdir / "runs" / self.setting / self.arm / f"seed{self.seed}"

    @property
    def name(self) -> str:
        """For people."""
        return " ".join(filter(None, (self.setting, self.arm, f"seed {self.seed}")))

    @property
    def error_file(self) -> pathlib.Path:
        """It exists where the run failed, and says why."""
        return self.folder / "error.txt"

    @property
    def state(self) -> str:
        """One of done, failed, started, waiting."""
        if (self.folder / "result.json").exists() and self._was_trained:
            return "done"
        if self.error_file.exists():
            return "failed"
        return "started" if (self.folder / "metrics.jsonl").exists() else "waiting"

    @property
    def _was_trained(self):
        # A run that has only begun may have been evaluated, too.
        steps = self.config.train.steps
        return self.number("trained_steps", default=steps) >= steps

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in ("done", "failed")

    @property
    def last_step(self) -> int:
        """That metrics were written of; 0 if there are none."""
        rows = self.rows()
        return int(rows[-1]["step"]) if rows else 0

    def rows(self) -> list[row_files.Row]:
        """Its metrics.

        Raises:
          InputError: what is in the file are no rows of numbers.
        """
        path = self.folder / "metrics.jsonl"
        rows = row_files.read_rows(path)
        for row in rows:
            for name, value in row.items():
                if not isinstance(value, int | float):
                    raise errors.InputError(
                        f"{path} is damaged: {name} of step {row['step']} is no number. Put back"
                        " the file as it was."
                    )
        return rows

    def number(self, *names: str, default: float | None = None) -> float:
        """A number of `result.json`, of a run that was evaluated.

        Args:
          names: that lead to it.
          default: what it is where it is missing; None where it must be there.

        Raises:
          InputError: it is missing, or no number.
        """
        path = self.folder / "result.json"
        found = files.read_json(path)
        try:
            for name in names:
                found = found[name]
            # null stands for a number that the examples could not tell.
            return math.nan if found is None else float(found)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, KeyError) and default is not None:
                return default
            raise errors.InputError(
                f"{path} is damaged: it has no number {'.'.join(map(str, names))}. To write it"
                f" anew: python -m experiments.evaluate --workdir={self.folder}"
            ) from error

    def seconds(self) -> float:
        """What an evaluated run took, over all its processes.

        A run that was trained together with others has its share of their time. For a run that
        is older than `seconds.json` it is the time of the last process alone, or NaN.

        Raises:
          InputError: a file is damaged.
        """
        of_processes = stopwatch.read(self.folder / "seconds.json")
        if of_processes:
            return sum(of_processes)
        last = self.number("wall_seconds_of_this_process", default=math.nan)
        return last / max(self.number("runs_trained_together", default=1), 1)

    def score(self, metric: str) -> float:
        """A number of `evaluation.retrieval` on the test split, of a finished run."""
        return self.number("embedding", "retrieval", metric)

    def fail(self, message: str) -> None:
        """Keeps the run with its error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.error_file, message.rstrip() + "\n")
