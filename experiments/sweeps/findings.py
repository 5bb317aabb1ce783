"""What the files of a sweep's runs say: scores, curves, and comparisons of its arms."""

import dataclasses
import pathlib

import ml_collections
import numpy as np
import pandas as pd

from configs import base
from experiments.config import objective
from experiments.run import record
from experiments.sweeps.runs import Run
from triplet_jax import errors
from triplet_jax.evaluation import comparison
from triplet_jax.runs import files, health, row_files


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the files of a sweep hold.

    Args:
      sweep: `sweep.json`.
      runs: a row a run: `name`, `setting`, `arm`, `seed`, `state`, `score`, `raw_pixels`, `steps`,
        `collapsed_at`, `seconds`, `error`.
      curves: a row for each run and step with metrics: `setting`, `arm`, `seed`, `step`, and
        numbers.
      summary: a row for each setting and arm, as in `summary.csv`.
      best_of: a row for each setting, about the best of several arms.
    """

    sweep: dict
    runs: pd.DataFrame
    curves: pd.DataFrame
    summary: pd.DataFrame
    best_of: pd.DataFrame


def read(workdir: pathlib.Path) -> Findings:
    """Gathers what all runs left.

    Raises:
      InputError: there is no sweep in this folder, or no run of it is finished.
    """
    path = workdir / "sweep.json"
    if not path.exists():
        raise errors.InputError(
            f"--workdir={workdir} holds no sweep: there is no sweep.json. Run one with python -m"
            f" experiments.sweep --config=configs/sweeps/schedules.py --workdir={workdir}"
        )
    sweep = files.read_json(path, "arms", "settings", "seeds", "reference", "metric", "best_of")
    found, curves = [], []
    for run in _runs(path, sweep):
        labels = {"setting": run.setting, "arm": run.arm, "seed": run.seed}
        try:
            rows = run.rows()
            found.append(_of_run(run, rows, sweep["metric"]))
            curves += [labels | _with_hardness(row) for row in row_files.merged(rows)]
        except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
            raise errors.InputError(
                f"{run.folder} is damaged: config.json or metrics.jsonl is none of a run"
                f" ({error!r}). Put back the files as they were."
            ) from error
    table = pd.DataFrame(found)
    if not (table.state == "done").any():
        raise errors.InputError(
            f"--workdir={workdir}: no run is finished yet. Run the sweep first."
        )
    return Findings(
        sweep, table, pd.DataFrame(curves), _summary(table, sweep), _best_of(table, sweep)
    )


def _runs(path, sweep):
    if not _is_sweep(sweep):
        raise errors.InputError(
            f"{path} is damaged: it is no sweep. Remove it, and run the same sweep again: runs that"
            " are finished stay."
        )
    return [
        _open(path.parent, setting, arm, seed)
        for setting, _ in sweep["settings"]
        for arm, _ in sweep["arms"]
        for seed in sweep["seeds"]
    ]


def _is_sweep(sweep):
    lists = [sweep[name] for name in ("arms", "settings", "seeds", "best_of")]
    if not all(isinstance(x, list) for x in lists):
        return False
    arms, settings, seeds, best_of = lists
    pairs = [isinstance(x, list) and list(map(type, x)) == [str, dict] for x in arms + settings]
    names = [sweep["reference"], sweep["metric"], *best_of]
    whole = all(pairs) and {*map(type, seeds)} <= {int} and {*map(type, names)} == {str}
    return whole and all((arms, settings, seeds))


def _open(workdir, setting, arm, seed):
    run = Run(arm, setting, seed, ml_collections.FrozenConfigDict({}), workdir)
    path = run.folder / "config.json"
    if path.exists():
        return dataclasses.replace(run, config=record.read_config(run.folder))
    return dataclasses.replace(run, config=ml_collections.FrozenConfigDict(base.get_config()))


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
        "raw_pixels": np.nan,
        "steps": int(rows[-1]["step"]) if rows else 0,
        "collapsed_at": _collapsed_at(run, rows),
        "seconds": np.nan,
        "error": run.error_file.read_text().strip() if run.state == "failed" else "",
    }
    if run.state == "done":
        found["score"] = run.score(metric)
        # Pairs have none.
        found["raw_pixels"] = run.number("raw_pixels", "retrieval", metric, default=np.nan)
        found["seconds"] = run.seconds()
    return found


def _collapsed_at(run, rows):
    """The first logged step at which the embedding had collapsed."""
    logged = [row for row in rows if "loss" in row]
    level = objective.collapsed_loss(run.config)
    for end in range(health.ROWS, len(logged) + 1):
        if health.collapse(logged[end - health.ROWS : end], level=level):
            return logged[end - 1]["step"]
    return np.nan


def _summary(table, sweep):
    rows = []
    for (setting, arm), of_arm in table.groupby(["setting", "arm"], sort=False):
        done = of_arm[of_arm.state == "done"]
        in_setting = table[(table.setting == setting) & (table.state == "done")]
        reference = in_setting[in_setting.arm == sweep["reference"]]
        row = {
            "arm": arm,
            "setting": setting,
            "runs": len(done),
            "failed": int((of_arm.state == "failed").sum()),
            "collapsed": int(of_arm.collapsed_at.notna().sum()),
        }
        metric = sweep["metric"]
        if len(done):
            mean, low, high, _ = comparison.estimate(done.score.to_numpy())
            row |= {metric: mean, "ci95_low": low, "ci95_high": high}
        else:
            row |= {metric: np.nan, "ci95_low": np.nan, "ci95_high": np.nan}
        difference = None
        if arm != sweep["reference"]:
            difference = comparison.paired(_by_seed(done), _by_seed(reference))
        names = ("difference", "difference_low", "difference_high", "pairs", "p_value")
        row |= dict(zip(names, difference or [np.nan] * len(names), strict=True))
        row |= {"raw_pixels": done.raw_pixels.mean(), "seconds": done.seconds.mean()}
        rows.append(row)
    summary = pd.DataFrame(rows)
    summary.insert(
        summary.columns.get_loc("p_value") + 1,
        "p_holm",
        comparison.holm(summary.p_value.to_numpy(np.float64)),
    )
    return summary


def _by_seed(of_arm):
    return dict(zip(of_arm.seed, of_arm.score, strict=True))


def _best_of(table, sweep):
    """Is the best of several settings better than the best of as many groups of the reference?"""
    arms = sweep["best_of"]
    rows = []
    done = table[table.state == "done"]
    for setting, _ in sweep["settings"]:
        here = done[done.setting == setting]
        reference = here[here.arm == sweep["reference"]].score.to_numpy()
        means = here[here.arm.isin(arms)].groupby("arm").score.mean()
        if not len(means) or len(reference) < 2:
            continue
        size = int(here[here.arm == means.idxmax()].shape[0])
        luck = comparison.best_of_n(reference, groups=len(means), size=size)
        rows.append(
            {
                "setting": setting,
                "best": means.idxmax(),
                "of": len(means),
                "mean": means.max(),
                "reference": sweep["reference"],
                "luck": luck.mean,
                "luck_low": luck.low,
                "luck_high": luck.high,
            }
        )
    return pd.DataFrame(rows)


def best_of_in_words(row: dict) -> str:
    """Of a row of `Findings.best_of`."""
    where = f"{row['setting']}: " if row["setting"] else ""
    return (
        f"{where}the best of {row['of']} settings, {row['best']}, has {row['mean']:.3f}; by luck"
        f" the best of {row['of']} groups of {row['reference']} has {row['luck']:.3f}"
        f" ({row['luck_low']:.3f} to {row['luck_high']:.3f})"
    )


def plus_minus(mean: float, low: float, high: float, sign: str = "-") -> str:
    """Such as 0.976 ± 0.004; empty for NaN."""
    if np.isnan(mean):
        return ""
    interval = "" if np.isnan(low) else f" ± {(high - low) / 2:.3f}"
    return f"{mean:{sign}.3f}{interval}"


def p_in_words(p_value: float) -> str:
    """Three digits; empty for NaN."""
    if np.isnan(p_value):
        return ""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
