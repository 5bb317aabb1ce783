"""Compares the arms of a sweep: scores over seeds, paired differences, and the best of several."""

import numpy as np
import pandas as pd

from triplet_jax.evaluation import comparison

_OF_A_DIFFERENCE = (
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
    "p_value",
    "detectable",
)


def compare(runs: pd.DataFrame, sweep: dict) -> pd.DataFrame:
    """Compares each arm with the reference, setting by setting.

    Every number of a comparison in a report comes from here.

    Args:
      runs: a row for each run, as `outcome.Outcome` has them.
      sweep: `sweep.json`.

    Returns:
      A row for each setting and arm, with the columns of `summary.csv`: the mean score with its
      95% interval; the paired difference to the reference with its own, and the p-value of the
      paired t-test; `p_holm`, that p-value corrected for all tests in the table; `detectable`, the
      difference that so many seeds would have shown with a power of 0.8; the mean scores of the
      validation split and of raw pixels, and the mean seconds of a run. NaN stands for what too few
      runs cannot tell.
    """
    rows = []
    for (setting, arm), of_arm in runs.groupby(["setting", "arm"], sort=False):
        done = of_arm[of_arm.state == "done"]
        ended = of_arm[of_arm.state.isin(["done", "failed"])]
        in_setting = runs[(runs.setting == setting) & (runs.state == "done")]
        reference = in_setting[in_setting.arm == sweep["reference"]]
        mean = low = high = np.nan
        if len(done):
            mean, low, high, _ = comparison.estimate(done.score.to_numpy())
        difference = None
        if arm != sweep["reference"]:
            difference = comparison.paired(_by_seed(done), _by_seed(reference))
        difference = difference or [np.nan] * len(_OF_A_DIFFERENCE)
        rows.append(
            {
                "arm": arm,
                "setting": setting,
                "runs": len(done),
                "failed": int((of_arm.state == "failed").sum()),
                "collapsed": int(ended.collapsed_at.notna().sum()),
                sweep["metric"]: mean,
                "ci95_low": low,
                "ci95_high": high,
                **dict(zip(_OF_A_DIFFERENCE, difference, strict=True)),
                "validation": done.validation.mean(),
                "raw_pixels": done.raw_pixels.mean(),
                "seconds": done.seconds.mean(),
            }
        )
    arms = pd.DataFrame(rows)
    corrected = comparison.holm(arms.p_value.to_numpy(np.float64))
    arms.insert(arms.columns.get_loc("p_value") + 1, "p_holm", corrected)
    return arms


def _by_seed(runs):
    return dict(zip(runs.seed, runs.score, strict=True))


def best_of(runs: pd.DataFrame, sweep: dict) -> pd.DataFrame:
    """Compares the best of several arms with the best of as many groups of reference runs.

    Args:
      runs: a row for each run, as `outcome.Outcome` has them.
      sweep: `sweep.json`, which names the several arms in `best_of`.

    Returns:
      A row for each setting: `setting`, `best`, the arm with the highest mean, `of`, the number of
      arms, `mean`, `reference`, and `luck`, `luck_low` and `luck_high`, from
      `comparison.best_of_n`. A setting that has no run of those arms, or fewer than two of the
      reference, has no row.
    """
    rows = []
    done = runs[runs.state == "done"]
    for setting, _ in sweep["settings"]:
        here = done[done.setting == setting]
        reference = here[here.arm == sweep["reference"]].score.dropna().to_numpy()
        means = here[here.arm.isin(sweep["best_of"])].groupby("arm").score.mean().dropna()
        if not len(means) or len(reference) < 2:
            continue
        best = means.idxmax()
        size = int((here.arm == best).sum())
        luck = comparison.best_of_n(reference, groups=len(means), size=size)
        rows.append(
            {
                "setting": setting,
                "best": best,
                "of": len(means),
                "mean": means.max(),
                "reference": sweep["reference"],
                "luck": luck.mean,
                "luck_low": luck.low,
                "luck_high": luck.high,
            }
        )
    return pd.DataFrame(rows)
