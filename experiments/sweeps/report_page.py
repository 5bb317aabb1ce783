"""The report of a sweep as one HTML page with plots, which opens from a file without a network."""

import json
from typing import NamedTuple

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.offline

from experiments.sweeps import summary
from experiments.sweeps.outcome import Outcome
from triplet_jax.evaluation import comparison
from triplet_jax.runs import files

# Okabe and Ito 2008: told apart by the colour-blind too, and on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C6D31")

# What is drawn over the steps: the name of each number in the metrics, and its title.
CURVES = {
    "validation/{metric}": "Validation {metric}",
    "loss": "Training loss",
    "active_fraction": "Active fraction: triplets whose penalty is not zero",
    "hardness": "Hardness: mean d(a, n) minus mean d(a, p) of mined triplets",
    "embedding_spread": "Spread of the embeddings: root mean squared distance to their mean",
}


class Plot(NamedTuple):
    """A plot of the page.

    Args:
      title: above it.
      setting: the setting whose runs it shows.
      figure: the plot.
    """

    title: str
    setting: str
    figure: go.Figure


def render(outcome: Outcome) -> str:
    """Renders the page, which holds the plotting library too."""
    sweep, runs = outcome.sweep, outcome.runs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments", "templates"), autoescape=True
    )
    settings = [name for name, _ in sweep["settings"]]
    arms = [name for name, _ in sweep["arms"]]
    colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(arms)}
    plots = [plot for name in settings for plot in _plots(outcome, name, colours)]
    rows = outcome.summary.to_dict("records")
    raw_pixels = {name: summary.raw_pixels(outcome, name) for name in settings}
    return environment.get_template("report.html").render(
        sweep=sweep,
        settings=settings,
        arms=arms,
        colours=colours,
        rows=[row | summary.as_text(row, sweep["metric"]) for row in rows],
        power=summary.power(outcome),
        best_of=summary.best_of(outcome),
        tuning=summary.tuning(outcome),
        trials=[
            row | {"fields": _fields(row["fields"])} for row in outcome.trials.to_dict("records")
        ],
        raw_pixels={name: score for name, score in raw_pixels.items() if score},
        collapsed=runs[runs.collapsed_at.notna()].to_dict("records"),
        failed=runs[runs.state == "failed"].to_dict("records"),
        unfinished=int((~runs.state.isin(["done", "failed"])).sum()),
        differences=[(name, _fields(fields)) for name, fields in sweep["arms"]],
        of_settings=[(name, _fields(fields)) for name, fields in sweep["settings"]],
        plots=plots,
        figures_json=_for_script([json.loads(plot.figure.to_json()) for plot in plots]),
        plotly=plotly.offline.get_plotlyjs(),
    )


def _for_script(content):
    """JSON that may stand in a script: no text in it can end the script."""
    return files.as_json(content).replace("<", "\\u003c")


def _fields(fields):
    return [f"{name} = {value!r}" for name, value in fields.items()]


def _plots(outcome, setting, colours):
    """All plots of one setting."""
    sweep, metric = outcome.sweep, outcome.sweep["metric"]
    arms = outcome.summary[outcome.summary.setting == setting]
    runs = outcome.runs[outcome.runs.setting == setting]
    done = runs[runs.state == "done"]
    yield Plot(
        f"{metric} on the test split: mean, 95% interval and every seed",
        setting,
        _scores(arms, done, metric, colours),
    )
    yield Plot(
        f"Paired difference to {sweep['reference']}, with its 95% interval",
        setting,
        _differences(arms, colours, sweep["reference"], metric),
    )
    curves = outcome.curves  # without columns where no run has metrics
    curves = curves[curves.setting == setting] if len(curves) else curves
    columns = {
        name.format(metric=metric): title.format(metric=metric) for name, title in CURVES.items()
    }
    columns |= {
        name: f"Scheduled: {name.removeprefix('schedule/')}"
        for name in curves.columns
        if name.startswith("schedule/")
    }
    for column, title in columns.items():
        if column in curves and curves[column].notna().any():
            yield Plot(title, setting, _over_steps(curves, column, title, colours, runs))
    yield Plot(
        "Wall time of a run, or its share of what was trained together",
        setting,
        _seconds(arms, colours),
    )


def _layout(figure, **more):
    figure.update_layout(
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        height=340,
        legend={"orientation": "h", "y": -0.25},
        **more,
    )
    return figure


def _scores(arms, runs, metric, colours):
    figure = go.Figure()
    for row in arms.to_dict("records"):
        arm = row["arm"]
        seeds = runs[runs.arm == arm]
        reach = (row["ci95_high"] - row["ci95_low"]) / 2
        figure.add_scatter(
            x=seeds.score,
            y=[arm] * len(seeds),
            mode="markers",
            marker={"color": colours[arm], "opacity": 0.45, "size": 7},
            text=[f"seed {seed}" for seed in seeds.seed],
            hovertemplate="%{text}: %{x:.4f}<extra>" + arm + "</extra>",
            legendgroup=arm,
            showlegend=False,
        )
        figure.add_scatter(
            x=[row[metric]],
            y=[arm],
            mode="markers",
            marker={"color": colours[arm], "symbol": "line-ns-open", "size": 16},
            error_x={"type": "data", "array": [None if np.isnan(reach) else reach]},
            hovertemplate="mean %{x:.4f}<extra>" + arm + "</extra>",
            legendgroup=arm,
            showlegend=False,
        )
    raw = arms.raw_pixels.mean()
    if not np.isnan(raw):
        figure.add_vline(
            x=raw, line_dash="dot", annotation_text="raw pixels", annotation_position="bottom right"
        )
    figure.update_yaxes(autorange="reversed")
    return _layout(figure, xaxis_title=metric)


def _differences(arms, colours, reference, metric):
    figure = go.Figure()
    for row in arms[arms.arm != reference].to_dict("records"):
        arm = row["arm"]
        reach = (row["difference_high"] - row["difference_low"]) / 2
        figure.add_scatter(
            x=[row["difference"]],
            y=[arm],
            mode="markers",
            marker={"color": colours[arm], "size": 10},
            error_x={"type": "data", "array": [None if np.isnan(reach) else reach]},
            hovertemplate="%{x:+.4f}<extra>" + arm + "</extra>",
            legendgroup=arm,
            showlegend=False,
        )
    figure.add_vline(x=0, line_dash="dot")
    figure.update_yaxes(autorange="reversed")
    return _layout(figure, xaxis_title=f"{metric} minus that of {reference}, seed by seed")


def _over_steps(curves, column, title, colours, runs):
    figure = go.Figure()
    for arm, colour in colours.items():
        mine = curves[(curves.arm == arm) & curves[column].notna()]
        if not len(mine):
            continue
        bands = _bands(mine, column)
        for name, dashed in (("high", False), ("low", True)):
            figure.add_scatter(
                x=bands.index,
                y=bands[name],
                mode="lines",
                line={"width": 0, "color": colour},
                fill="tonexty" if dashed else None,
                fillcolor=_faint(colour),
                hoverinfo="skip",
                legendgroup=arm,
                showlegend=False,
            )
        figure.add_scatter(
            x=bands.index,
            y=bands["mean"],
            mode="lines",
            line={"color": colour},
            name=arm,
            hovertemplate="step %{x}: %{y:.4f}<extra>" + arm + "</extra>",
            legendgroup=arm,
        )
        gone = runs[(runs.arm == arm) & runs.collapsed_at.notna()]
        if len(gone):
            nearest = [np.abs(bands.index - step).argmin() for step in gone.collapsed_at]
            figure.add_scatter(
                x=gone.collapsed_at,
                y=bands["mean"].iloc[nearest],
                mode="markers",
                marker={"color": colour, "symbol": "x", "size": 10},
                text=[f"seed {seed} collapsed" for seed in gone.seed],
                hovertemplate="%{text} at step %{x}<extra>" + arm + "</extra>",
                legendgroup=arm,
                showlegend=False,
            )
    return _layout(figure, xaxis_title="step", yaxis_title=title.split(":")[0], hovermode="closest")


def _bands(mine, column):
    """Mean and 95% interval over seeds at each step."""
    found = {}
    for step, values in mine.groupby("step")[column]:
        mean, low, high, count = comparison.estimate(values.to_numpy())
        found[step] = {
            "mean": mean,
            "low": mean if count < 2 else low,
            "high": mean if count < 2 else high,
        }
    return pd.DataFrame(found).T


def _faint(colour):
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def _seconds(arms, colours):
    figure = go.Figure()
    for row in arms[arms.seconds.notna()].to_dict("records"):
        arm = row["arm"]
        figure.add_bar(
            x=[arm],
            y=[row["seconds"]],
            marker_color=colours[arm],
            hovertemplate="%{y:.1f} s<extra>" + arm + "</extra>",
            legendgroup=arm,
            showlegend=False,
        )
    return _layout(figure, yaxis_title="seconds")
