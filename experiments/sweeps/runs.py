"""A run of a sweep, and how far it has come, told from its files alone."""

import dataclasses
import math
import pathlib

import ml_collections

from experiments.run import early_stopping
from triplet_jax import errors
from triplet_jax.runs import files, row_files, stopwatch


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm in one setting with one seed.

    Args:
      arm: the name of the arm.
      setting: the name of the setting; empty where there is only one.
      seed: the seed.
      config: of the run.
      workdir: the folder of the sweep.
    """

    arm: str
    setting: str
    seed: int
    config: ml_collections.FrozenConfigDict
    workdir: pathlib.Path

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the run."""
        return self.workdir / "runs" / self.setting / self.arm / f"seed{self.seed}"

    @property
    def name(self) -> str:
        """Names the run in messages."""
        return " ".join(filter(None, (self.setting, self.arm, f"seed {self.seed}")))

    @property
    def error_file(self) -> pathlib.Path:
        """The file that says why the run failed; it exists only if it did."""
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
        # A run may have been evaluated before its end.
        steps = self.config.train.steps
        taken = self.number("trained_steps", default=steps)
        return taken >= steps or early_stopping.at(self.folder, self.config, taken).is_over

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.state in ("done", "failed")

    @property
    def last_step(self) -> int:
        """The last step with metrics in the file; 0 if there is none."""
        rows = self.rows()
        return int(rows[-1]["step"]) if rows else 0

    def rows(self) -> list[row_files.Row]:
        """Reads the metrics of the run.

        Raises:
          InputError: the file holds something else than rows of numbers.
        """
        path = self.folder / "metrics.jsonl"
        rows = row_files.read_rows(path)
        for row in rows:
            for name, value in row.items():
                if value is None:  # NaN, which JSON lacks
                    row[name] = math.nan
                elif not isinstance(value, int | float):
                    raise errors.InputError(
                        f"{path} is damaged: {name} of step {row['step']} is no number. Put back"
                        " the file as it was."
                    )
        return rows

    def number(self, *names: str, default: float | None = None) -> float:
        """Reads a number from `result.json` of an evaluated run.

        Args:
          names: the keys that lead to it.
          default: the value if it is missing; None if it must be there.

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
        """The seconds that an evaluated run took, over all its processes.

        A run that was trained together with others took its share of their time. For a run of an
        old version, which has no `seconds.json`, it is the time of the last process alone, or NaN.

        Raises:
          InputError: a file is damaged.
        """
        of_processes = stopwatch.read(self.folder / "seconds.json")
        if of_processes:
            return sum(of_processes)
        last = self.number("wall_seconds_of_this_process", default=math.nan)
        return last / max(self.number("runs_trained_together", default=1), 1)

    def score(self, metric: str) -> float:
        """The score of a finished run on its test split, by a metric of `evaluation.retrieval`."""
        return self.number("embedding", "retrieval", metric)

    def validation_score(self, metric: str) -> float:
        """The score on the validation split, by which a run is chosen; the test split is not read.

        It is that of the checkpoint that `evaluate.checkpoint` chooses: of the best one by MAP@R,
        or of the last. NaN where there is none.

        Args:
          metric: the name of the score.
        """
        rows = [row for row in row_files.merged(self.rows()) if "validation/map_at_r" in row]
        if not rows:
            return math.nan
        last = self.config.evaluate.checkpoint == "last"
        # Of equals the later one, as a run keeps it.
        row = rows[-1] if last else max(reversed(rows), key=lambda row: row["validation/map_at_r"])
        return float(row.get(f"validation/{metric}", math.nan))

    def fail(self, message: str) -> None:
        """Marks the run as failed, with its error."""
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.error_file, message.rstrip() + "\n")
