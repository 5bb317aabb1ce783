"""A trial of a study: a point of its space, trained with each of the study's seeds."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import ml_collections
import numpy as np

from experiments.config import check as config_checks
from experiments.config import completion
from experiments.sweeps import plan, runs
from experiments.tuning.space import Point, Space
from triplet_jax.runs import stopwatch


@dataclasses.dataclass(frozen=True)
class Trial:
    """A trial, and its runs.

    Args:
      number: from 0, in the order in which trials began.
      point: of the space.
      runs: one for each seed; they look like those of a sweep.
    """

    number: int
    point: Point
    runs: Sequence[runs.Run]

    @property
    def error(self) -> str:
        """Why it failed; empty where it did not."""
        failed = [run for run in self.runs if run.state == "failed"]
        return failed[0].error_file.read_text().strip() if failed else ""

    @property
    def is_done(self) -> bool:
        """Whether every run has come to its end."""
        return all(run.state == "done" for run in self.runs)

    @property
    def steps(self) -> int:
        """The steps that all its runs have taken."""
        return sum(run.last_step for run in self.runs)

    @property
    def seconds(self) -> float:
        """The seconds that all its runs have taken."""
        return sum(sum(stopwatch.read(run.folder / "seconds.json")) for run in self.runs)

    def value(self, metric: str) -> float:
        """The mean of its runs' scores on the validation split.

        Args:
          metric: the name of the score.
        """
        mean = np.mean([run.validation_score(metric) for run in self.runs])
        return float(np.nan_to_num(mean, nan=-math.inf))


def folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """The folder of a trial, with the folders of its runs."""
    return workdir / "runs" / _name(number)


def _name(number):
    return f"trial{number:03d}"


def trial_at(
    study: ml_collections.ConfigDict,
    space: Space,
    point: Point,
    number: int,
    workdir: pathlib.Path,
) -> Trial:
    """The trial of this number at a point, whose config is not checked.

    Raises:
      InputError: a field is not known, or does not take its value.
    """
    planned = [
        runs.Run(_name(number), "", seed, config_at(study, space, point, seed), workdir)
        for seed in study.seeds
    ]
    return Trial(number, point, planned)


def config_at(
    study: ml_collections.ConfigDict, space: Space, point: Point, seed: int
) -> ml_collections.FrozenConfigDict:
    """The config of a run at a point.

    Raises:
      InputError: a field is not known, or does not take its value.
    """
    differences = space.differences(point) | dict.fromkeys(study.also_seeds, seed)
    return completion.completed(plan.config_of(study.run, differences, "space"))


def check(study: ml_collections.ConfigDict, config: ml_collections.FrozenConfigDict) -> None:
    """Refuses the config of a run that makes no sense, or that the study's engine does not obey.

    Raises:
      InputError: naming the field.
    """
    config_checks.check(config)
    plan.check_engine(study.engine, config)
