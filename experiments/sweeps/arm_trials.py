"""The trials of a sweep's arms: equally many for each; the validation split chooses one.

They are runs of the sweep too, whose arm is named after the trial: `semi_hard.3`, of `semi_hard`.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from experiments.config import fields
from experiments.config.fields import declaration, tune
from experiments.sweeps import plan as plans
from experiments.sweeps import runs
from triplet_jax import errors


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is tried for an arm in one setting.

    Args:
      setting: the name of the setting.
      arm: the name of the arm.
      number: from 0, in the order in which the sweep lists what is tried for the arm.
      fields: that it sets.
      runs: one for each of the sweep's `trial_seeds`.
    """

    setting: str
    arm: str
    number: int
    fields: Mapping[str, Any]
    runs: Sequence[runs.Run]

    def value(self, metric: str) -> float:
        """The mean score of its runs on the validation split; -inf where one has none.

        Args:
          metric: the name of the score.
        """
        scores = [
            run.validation_score(metric) if run.state == "done" else math.nan for run in self.runs
        ]
        return float(np.nan_to_num(np.mean(scores), nan=-math.inf))

    @property
    def seconds(self) -> float:
        """The seconds that its finished runs have taken."""
        return sum(run.seconds() for run in self.runs if run.state == "done")


def all_of(sweep: Mapping[str, Any], run_of: Callable[..., runs.Run]) -> list[Trial]:
    """Lists the trials of a sweep, setting by setting.

    Args:
      sweep: its config, or its `sweep.json`.
      run_of: makes a run, of the names of its setting and of its arm, of its seed, and of the
        fields in which it differs from the config `run`.
    """
    tried = dict(sweep["trials"])
    return [
        Trial(
            setting,
            arm,
            number,
            of_trial,
            [
                run_of(setting, f"{arm}.{number}", seed, {**in_setting, **of_arm, **of_trial})
                for seed in sweep["trial_seeds"]
            ],
        )
        for setting, in_setting in sweep["settings"]
        for arm, of_arm in sweep["arms"]
        for number, of_trial in enumerate(tried.get(arm, ()))
    ]


def plan(sweep: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Trial]:
    """Makes all trials, each with a checked config; none where the sweep has no `trials`.

    Args:
      sweep: its config.
      workdir: of the sweep.

    Raises:
      InputError: arms differ in their number of trials, a trial is no dict, sets a field by which
        it would be judged otherwise or has a seed of the sweep, its score is not known on the
        validation split, or its config makes no sense.
    """
    plans.check(sweep)
    if not sweep.trials:
        return []
    _check(sweep)

    def run_of(setting, name, seed, differences):
        return plans.run_of(sweep, (setting, name, seed), differences, workdir)

    planned = all_of(sweep, run_of)
    for trial in planned:
        plans.check_run(sweep, trial.runs[0])
    return planned


def _check(sweep):
    plans.check_pairs("trials", sweep.trials, Sequence)
    names = [name for name, _ in sweep.trials]
    for name, tried in sweep.trials:
        errors.check_known("trials", name, [arm for arm, _ in sweep.arms])
        _check_fields(name, tried)
    counts = {arm: 0 for arm, _ in sweep.arms} | {name: len(tried) for name, tried in sweep.trials}
    if len(set(counts.values())) > 1 or len(set(names)) < len(names):
        listed = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        raise errors.InputError(
            f"trials: name every arm once, with equally many trials; they have {listed}. Arms that"
            " are tuned more than others win by that alone."
        )
    plans.check_seeds(sweep.trial_seeds, "trial_seeds")
    if both := sorted({*sweep.seeds} & {*sweep.trial_seeds}):
        raise errors.InputError(
            f"trial_seeds={tuple(sweep.trial_seeds)} and seeds share {both}. A seed by which"
            " settings were chosen flatters them: give others."
        )
    errors.check_known("metric, where there are trials,", sweep.metric, tune.METRICS)


def _check_fields(arm, tried):
    """Refuses a trial that is no dict, and fields by which trials are judged otherwise."""
    for fields_of_trial in tried:
        if not isinstance(fields_of_trial, Mapping):
            raise errors.InputError(
                f"trials: {arm!r} lists {fields_of_trial!r}, which is no dict of fields and their"
                " values."
            )
        for name in fields_of_trial:
            if fields.concerns(name) in (declaration.EXAMPLES, declaration.JUDGING):
                raise errors.InputError(
                    f"trials: {arm!r} tries {name!r}, which decides the examples or how runs are"
                    " judged, so that the scores of its trials say nothing of each other. Set it"
                    " in run, arms or settings."
                )


def chosen(trials: Sequence[Trial], metric: str) -> dict[tuple[str, str], Trial]:
    """Chooses, for each setting and arm, the trial with the best score on the validation split.

    Args:
      trials: of all settings and arms, finished.
      metric: the name of the score.

    Returns:
      The first of the best, by the names of the setting and the arm.

    Raises:
      InputError: all trials of an arm failed.
    """
    best: dict[tuple[str, str], Trial] = {}
    for trial in trials:
        key = trial.setting, trial.arm
        if key not in best or trial.value(metric) > best[key].value(metric):
            best[key] = trial
    for (setting, arm), trial in best.items():
        if trial.value(metric) == -math.inf:
            where = f" in setting {setting!r}" if setting else ""
            failed = [run.error_file for run in trial.runs if run.state == "failed"]
            why = "no trial has a validation score, as the validation split is too small"
            if failed:
                why = f"all of its trials failed; {failed[0]} says why"
            raise errors.InputError(
                f"arm {arm!r}{where}: {why}. Correct trials of the sweep, and give another"
                " --workdir."
            )
    return best
