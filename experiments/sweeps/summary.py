"""The tables of a sweep as text: printed, in `summary.md`, and cell by cell for the page."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import rich.console
import rich.table

from experiments.sweeps.outcome import Outcome
from triplet_jax.evaluation import comparison


@dataclasses.dataclass(frozen=True)
class Table:
    """The comparison of the arms in one setting, as text.

    Args:
      setting: its name; empty where there is only one.
      header: the names of the columns.
      rows: the cells.
      raw_pixels: the score of raw pixels; empty where there is none.
    """

    setting: str
    header: list[str]
    rows: list[list[str]]
    raw_pixels: str


def tables(outcome: Outcome) -> Iterator[Table]:
    """Makes the table of each setting."""
    sweep = outcome.sweep
    for setting, arms in outcome.summary.groupby("setting", sort=False):
        troubles = [name for name in ("collapsed", "failed") if arms[name].any()]
        rows = []
        for arm in arms.to_dict("records"):
            text = as_text(arm, sweep["metric"])
            rows.append(
                [
                    *(text[name] for name in ("arm", "score", "difference", "p_holm")),
                    *(text[name] for name in troubles),
                ]
            )
        header = ["arm", sweep["metric"], f"minus {sweep['reference']}", "p (Holm)", *troubles]
        yield Table(setting, header, rows, raw_pixels(outcome, setting))


def tuning(outcome: Outcome) -> Table | None:
    """Makes the table of how the arms were tuned; None where they were not.

    For each arm it has what was chosen, the score that chose it, and the scores with fresh seeds:
    on the validation split, which shows how much of that score was luck, and on the test split.
    """
    if not len(outcome.trials):
        return None
    metric = outcome.sweep["metric"]
    of_arms = {(row["setting"], row["arm"]): row for row in outcome.summary.to_dict("records")}
    tried = outcome.trials.groupby(["setting", "arm"], sort=False).number.count()
    rows = []
    for row in outcome.trials[outcome.trials.chosen].to_dict("records"):
        names = row["setting"], row["arm"]
        arm = of_arms[names]
        rows.append(
            [
                *(names if any(outcome.trials.setting) else names[1:]),
                str(tried[names]),
                ", ".join(
                    f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                    for name, value in row["fields"].items()
                ),
                *(_number(x) for x in (row["validation"], arm["validation"], arm[metric])),
            ]
        )
    header = ["arm", "trials", "chosen", "validation", "with fresh seeds", "test"]
    return Table("", [*["setting"] * any(outcome.trials.setting), *header], rows, "")


def as_text(arm: dict, metric: str) -> dict[str, str]:
    """Formats a row of `Outcome.summary`, so that all reports show the same digits.

    Args:
      arm: the row.
      metric: the metric of the sweep.

    Returns:
      `arm`, `score`, `difference`, `p`, `p_holm`, `collapsed`, `failed` and `seconds`; empty
      where there is no number.
    """
    begun = int(arm["runs"] + arm["failed"])
    difference = (arm["difference"], arm["difference_low"], arm["difference_high"])
    return {
        "arm": arm["arm"],
        "score": _plus_minus(arm[metric], arm["ci95_low"], arm["ci95_high"]),
        "difference": _plus_minus(*difference, sign="+"),
        "p": _p_value(arm["p_value"]),
        "p_holm": _p_value(arm["p_holm"]),
        "collapsed": _share(arm["collapsed"], begun),
        "failed": f"{arm['failed']} of {begun}" if arm["failed"] else "",
        "seconds": "" if np.isnan(arm["seconds"]) else f"{arm['seconds']:.1f}",
    }


def raw_pixels(outcome: Outcome, setting: str) -> str:
    """Formats the score of raw pixels in a setting; empty where there is none."""
    score = outcome.summary[outcome.summary.setting == setting].raw_pixels.mean()
    return "" if np.isnan(score) else f"{score:.3f}"


def remarks(outcome: Outcome) -> list[str]:
    """Says what stands below the tables: power, the best of several arms, and the failed runs."""
    failed = outcome.runs[outcome.runs.state == "failed"].to_dict("records")
    of_failed = [
        f"failed: {run['name']}: {'; '.join(str(run['error']).splitlines())}" for run in failed
    ]
    return power(outcome) + best_of(outcome) + of_failed


def power(outcome: Outcome) -> list[str]:
    """Says, for each setting, which difference the seeds could have shown in every arm."""
    lines = []
    for setting, arms in outcome.summary.groupby("setting", sort=False):
        if arms.detectable.notna().any():
            where = f"{setting}: " if setting else ""
            others = arms[arms.arm != outcome.sweep["reference"]]
            among = (
                "any arm" if others.detectable.notna().all() else "any arm with two or more seeds"
            )
            lines.append(
                f"{where}a true difference of {arms.detectable.max():.3f} to"
                f" {outcome.sweep['reference']} would have been found in {among} with a probability"
                " of 80% or more, before Holm's correction"
            )
    return lines


def best_of(outcome: Outcome) -> list[str]:
    """Says, for each setting, what the best of several arms reaches, and what luck alone does."""
    lines = []
    for row in outcome.best_of.to_dict("records"):
        where = f"{row['setting']}: " if row["setting"] else ""
        lines.append(
            f"{where}the best of {row['of']} arms, {row['best']}, has {row['mean']:.3f}; by"
            f" luck the best of {row['of']} groups of {row['reference']} has {row['luck']:.3f}"
            f" ({row['luck_low']:.3f} to {row['luck_high']:.3f})"
        )
    return lines


def show(outcome: Outcome) -> None:
    """Prints the tables, and the remarks below them."""
    console = rich.console.Console()
    for table in tables(outcome):
        caption = ["mean ± 95% over seeds", *_of_raw_pixels(table)]
        # On a narrow screen other cells get a second line, and the names of arms stay whole.
        header = [rich.table.Column(table.header[0], no_wrap=True), *table.header[1:]]
        printed = rich.table.Table(*header, title=table.setting or None, caption="; ".join(caption))
        for row in table.rows:
            printed.add_row(*row)
        console.print(printed)
    for line in remarks(outcome):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def markdown(outcome: Outcome) -> str:
    """Renders the tables and remarks in Markdown, and what all runs cost."""
    parts = []
    for table in tables(outcome):
        title = "; ".join(filter(None, [table.setting, *_of_raw_pixels(table)]))
        titled = [f"{title}\n"] if title else []
        parts.append("\n".join([*titled, *_lines(table)]))
    if tuned := tuning(outcome):
        parts.append("\n".join(["tuning\n", *_lines(tuned)]))
    done = outcome.runs[outcome.runs.state == "done"]
    low, high = done.steps.min(), done.steps.max()
    steps = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    cost = f"{len(done)} runs of {steps} steps, {done.seconds.sum() / 60:.1f} minutes of processes."
    below = "\n".join(f"- {line}" for line in [*remarks(outcome), cost, *_of_trials(outcome)])
    return "\n\n".join([*parts, below]) + "\n"


def _of_trials(outcome):
    """What the trials cost."""
    if not len(outcome.trials):
        return []
    count = len(outcome.trials) * len(outcome.sweep["trial_seeds"])
    return [
        f"{count} runs of trials, {outcome.trials.seconds.sum() / 60:.1f} minutes of processes."
    ]


def _lines(table):
    """The table in Markdown."""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _of_raw_pixels(table):
    return [f"raw pixels {table.raw_pixels}"] if table.raw_pixels else []


def _plus_minus(mean, low, high, sign="-"):
    """Such as 0.976 ± 0.004."""
    if np.isnan(mean):
        return ""
    interval = "" if np.isnan(low) else f" ± {(high - low) / 2:.3f}"
    return f"{mean:{sign}.3f}{interval}"


def _number(x):
    return f"{x:.3f}" if np.isfinite(x) else ""


def _share(count, of):
    """Such as 3 of 10 (0.11 to 0.60), by Wilson's interval; empty for none."""
    if not count:
        return ""
    found = comparison.share(int(count), of)
    return f"{count} of {of} ({found.low:.2f} to {found.high:.2f})"


def _p_value(p):
    if np.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
