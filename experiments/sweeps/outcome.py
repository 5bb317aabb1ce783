"""What a sweep found, gathered from the files of its runs."""

import dataclasses
import pathlib
from collections.abc import Iterator

import ml_collections
import numpy as np
import pandas as pd

from experiments.config import defaults, objective
from experiments.run import config_json
from experiments.sweeps import arm_comparison, arm_trials, runs
from triplet_jax import errors
from triplet_jax.runs import files, health, row_files

# What an older sweep.json lacks.
_WITHOUT_TRIALS: dict[str, list] = {"trials": [], "trial_seeds": []}
_OF_TRIALS = tuple(_WITHOUT_TRIALS)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep found.

    Args:
      sweep: `sweep.json`.
      runs: a row for each run: `name`, `setting`, `arm`, `seed`, `state`, `score`, `validation`,
        `raw_pixels`, `steps`, `collapsed_at`, `seconds`, `error`.
      curves: a row for each run and step with metrics: `setting`, `arm`, `seed`, `step`, and
        numbers.
      summary: a row for each setting and arm, from `arm_comparison.compare`; `summary.csv`.
      best_of: a row for each setting, from `arm_comparison.best_of`.
      trials: a row for each trial: `setting`, `arm`, `number`, `fields`, `validation`, `chosen`,
        `seconds`; none where the arms were not tuned.
    """

    sweep: dict
    runs: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    best_of: pd.DataFrame
    trials: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


def read(workdir: pathlib.Path) -> Outcome:
    """Gathers what all runs of a sweep have left so far.

    Args:
      workdir: of the sweep.

    Raises:
      InputError: there is no sweep in this folder, no run of it is finished, or a file is damaged.
    """
    path = workdir / "sweep.json"
    if not path.exists():
        raise errors.InputError(
            f"--workdir={workdir} holds no sweep: there is no sweep.json. Run one with python -m"
            f" experiments.sweep --config=configs/sweeps/schedules.py --workdir={workdir}"
        )
    sweep = files.read_json(path, "arms", "settings", "seeds", "reference", "metric", "best_of")
    sweep = _WITHOUT_TRIALS | sweep
    if not _is_sweep(sweep):
        raise errors.InputError(
            f"{path} is damaged: it describes no sweep. Remove it, and run the same sweep again:"
            " finished runs stay."
        )
    found, curves = [], []
    for run in _runs(workdir, sweep):
        labels = {"setting": run.setting, "arm": run.arm, "seed": run.seed}
        try:
            rows = run.rows()
            found.append(_of_run(run, rows, sweep["metric"]))
            curves += [labels | _with_hardness(row) for row in row_files.merged(rows)]
        except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
            raise errors.InputError(
                f"{run.folder} is damaged: its config.json or metrics.jsonl is not that of a run"
                f" ({error!r}). Put the files back as they were."
            ) from error
    table = pd.DataFrame(found)
    if not (table.state == "done").any():
        raise errors.InputError(
            f"--workdir={workdir}: no run is finished yet. Run the sweep first."
        )
    return Outcome(
        sweep=sweep,
        runs=table,
        curves=pd.DataFrame(curves),
        summary=arm_comparison.compare(table, sweep),
        best_of=arm_comparison.best_of(table, sweep),
        trials=_trials(workdir, sweep),
    )


def _is_sweep(sweep):
    lists = [sweep[name] for name in ("arms", "settings", "seeds", "best_of", *_OF_TRIALS)]
    if not all(isinstance(x, list) for x in lists):
        return False
    arms, settings, seeds, best_of, trials, trial_seeds = lists
    pairs = [_is_pair(x, dict) for x in arms + settings] + [_is_pair(x, list) for x in trials]
    names = [sweep["reference"], sweep["metric"], *best_of]
    whole = all(pairs) and {*map(type, seeds + trial_seeds)} <= {int}
    tried = {type(fields) for _, of_arm in trials for fields in of_arm} if whole else set()
    return whole and {*map(type, names)} == {str} and tried <= {dict} and all(lists[:3])


def _is_pair(x, kind):
    return isinstance(x, list) and list(map(type, x)) == [str, kind]


def _trials(workdir, sweep):
    trials = arm_trials.all_of(sweep, lambda *names: _open(workdir, *names[:3]))
    best = arm_trials.chosen(trials, sweep["metric"]) if trials else {}
    return pd.DataFrame(
        {
            "setting": trial.setting,
            "arm": trial.arm,
            "number": trial.number,
            "fields": trial.fields,
            "validation": trial.value(sweep["metric"]),
            "chosen": best[trial.setting, trial.arm] is trial,
            "seconds": trial.seconds,
        }
        for trial in trials
    )


def _runs(workdir, sweep) -> Iterator[runs.Run]:
    for setting, _ in sweep["settings"]:
        for arm, _ in sweep["arms"]:
            for seed in sweep["seeds"]:
                yield _open(workdir, setting, arm, seed)


def _open(workdir, setting, arm, seed):
    run = runs.Run(arm, setting, seed, ml_collections.FrozenConfigDict({}), workdir)
    if (run.folder / "config.json").exists():
        return dataclasses.replace(run, config=config_json.read(run.folder))
    return dataclasses.replace(run, config=ml_collections.FrozenConfigDict(defaults.get_config()))


def _with_hardness(row):
    if "mean_d_an" not in row:
        return row
    return row | {"hardness": row["mean_d_an"] - row["mean_d_ap"]}


def _of_run(run, rows, metric):
    found = {
        "name": run.name,
        "setting": run.setting,
        "arm": run.arm,
        "seed": run.seed,
        "state": run.state,
        "score": np.nan,
        "validation": np.nan,
        "raw_pixels": np.nan,
        "steps": int(rows[-1]["step"]) if rows else 0,
        "collapsed_at": _collapsed_at(run, rows),
        "seconds": np.nan,
        "error": run.error_file.read_text().strip() if run.state == "failed" else "",
    }
    if run.state == "done":
        found["score"] = run.score(metric)
        found["validation"] = run.validation_score(metric)
        # A run on pairs has no score of raw pixels.
        found["raw_pixels"] = run.number("raw_pixels", "retrieval", metric, default=np.nan)
        found["seconds"] = run.seconds()
    return found


def _collapsed_at(run, rows):
    """The first logged step at which the embedding had collapsed; NaN where it never did."""
    logged = [row for row in rows if "loss" in row]
    level = objective.collapsed_loss(run.config)
    for end in range(health.ROWS, len(logged) + 1):
        if health.collapse(logged[end - health.ROWS : end], level=level):
            return logged[end - 1]["step"]
    return np.nan
