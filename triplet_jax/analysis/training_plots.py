"""Plots of training over its steps: metrics, arms of a sweep, and what was mined.

Every function draws into `axes` and returns it.
"""

from collections.abc import Mapping, Sequence

import matplotlib.axes
import numpy as np
import pandas as pd

from triplet_jax import telemetry
from triplet_jax.analysis import plot_style
from triplet_jax.analysis.plot_style import BAD, COLORS, GOOD, GREY
from triplet_jax.evaluation import comparison


def curves(
    axes: matplotlib.axes.Axes, tables: Mapping[str, pd.DataFrame], column: str
) -> matplotlib.axes.Axes:
    """A metric over the steps, with a line for each run.

    Args:
      axes: where to draw.
      tables: the `metrics` of a `run.Run`, by the name of its line.
      column: the metric.
    """
    for number, (name, table) in enumerate(tables.items()):
        known = table[["step", column]].dropna()
        axes.plot(known.step, known[column], label=name, **plot_style.line(number))
    axes.set(xlabel="step", ylabel=plot_style.in_words(column))
    if len(tables) > 1:
        axes.legend(frameon=False)
    return axes


def bands(
    axes: matplotlib.axes.Axes,
    table: pd.DataFrame,
    column: str,
    *,
    arms: Sequence[str] | None = None,
) -> matplotlib.axes.Axes:
    """A metric over the steps: the mean over each arm's seeds, with its 95% interval.

    Args:
      axes: where to draw.
      table: has the columns `arm`, `seed`, `step` and the metric.
      column: the metric.
      arms: the arms to draw; None draws all.
    """
    known = table[["arm", "seed", "step", column]].dropna()
    for number, arm in enumerate(known.arm.unique() if arms is None else arms):
        of_arm = known[known.arm == arm].groupby("step")[column]
        steps, means, low, high = [], [], [], []
        for step, values in of_arm:
            found = comparison.estimate(values.to_numpy(np.float64))
            steps.append(step), means.append(found.mean)
            low.append(found.low), high.append(found.high)
        (line,) = axes.plot(steps, means, label=arm, **plot_style.line(number))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set(xlabel="step", ylabel=plot_style.in_words(column))
    plot_style.legend_above(axes)
    return axes


def arm_scores(
    axes: matplotlib.axes.Axes, summary: pd.DataFrame, metric: str
) -> matplotlib.axes.Axes:
    """The mean score of each arm with its 95% interval.

    Args:
      axes: where to draw.
      summary: a row for each arm, with `arm`, the metric, `ci95_low`, `ci95_high` and `raw_pixels`,
        the score of the raw inputs.
      metric: the column of the score.
    """
    rows = summary[::-1]
    reach = (rows.ci95_high - rows.ci95_low) / 2
    axes.errorbar(
        rows[metric],
        rows.arm,
        xerr=reach,
        fmt="o",
        color=COLORS[0],
        capsize=4,
        label="mean, 95% CI",
    )
    raw = rows.raw_pixels.mean()
    if np.isfinite(raw):
        axes.axvline(raw, color=GREY, ls="--", label="raw inputs")
    axes.set(xlabel=plot_style.in_words(metric), ylabel="arm")
    plot_style.legend_above(axes)
    return axes


def census(axes: matplotlib.axes.Axes, arrays: Mapping[str, np.ndarray]) -> matplotlib.axes.Axes:
    """The shares of easy, semi-hard and hard triplets over the steps, from `run.Run.telemetry`."""
    names, colors = ("hard", "semi-hard", "easy"), (BAD, COLORS[1], GOOD)
    parts = axes.stackplot(arrays["step"], arrays["census"].T[::-1], labels=names, colors=colors)
    for part, hatch in zip(parts, ("//", "", ".."), strict=True):
        part.set(hatch=hatch, edgecolor="white", linewidth=0)
    axes.set(xlabel="step", ylabel="share of all triplets", ylim=(0, 1))
    axes.margins(x=0)
    axes.legend(loc="lower left", framealpha=0.9)
    return axes


def mined_distances(
    axes: matplotlib.axes.Axes, arrays: Mapping[str, np.ndarray]
) -> matplotlib.axes.Axes:
    """Medians and quartiles of `d_ap` and `d_an` of the mined triplets over the steps."""
    low, middle, high = (telemetry.PERCENTILES.index(p) for p in (25, 50, 75))
    kinds = (("d_ap", GOOD, "-", "anchor to positive"), ("d_an", BAD, "--", "anchor to negative"))
    for name, color, style, label in kinds:
        of = arrays[name].T
        axes.plot(arrays["step"], of[middle], color=color, ls=style, label=label)
        axes.fill_between(arrays["step"], of[low], of[high], color=color, alpha=0.15, lw=0)
    axes.set(xlabel="step", ylabel="distance of mined triplets")
    axes.legend(frameon=False)
    return axes


def histogram_over_steps(
    axes: matplotlib.axes.Axes, arrays: Mapping[str, np.ndarray], name: str
) -> matplotlib.axes.Axes:
    """A histogram for each logged step; the darker, the more triplets.

    Each reaches half of the way to the step before it, and to the one after it.

    Args:
      axes: where to draw.
      arrays: from `run.Run.telemetry`.
      name: "hardness" or "negative_rank".
    """
    edges = {"hardness": telemetry.HARDNESS_EDGES, "negative_rank": telemetry.RANK_EDGES}[name]
    labels = {
        "hardness": "(d_an - d_ap) / mean distance to negatives",
        "negative_rank": "rank of the negative: 0 nearest, 1 farthest",
    }
    steps = arrays["step"]
    half = np.diff(steps) / 2 if len(steps) > 1 else np.array([0.5])
    ends = np.concatenate([steps[:1] - half[0], steps[:-1] + half, steps[-1:] + half[-1]])
    mesh = axes.pcolormesh(ends, edges, arrays[name].T, cmap="Blues", norm=plot_style.root_scale())
    axes.figure.colorbar(mesh, ax=axes, label="share of mined triplets")
    axes.set(xlabel="step", ylabel=labels[name])
    return axes
