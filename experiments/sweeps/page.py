"""A sweep's findings as one HTML page with plots, which opens from a file without a network."""

import json

import jinja2
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.offline

from experiments.sweeps.findings import Findings, best_of_in_words, p_in_words, plus_minus
from triplet_jax.evaluation import comparison
from triplet_jax.runs import files

# Okabe and Ito 2008: told apart by the colour-blind too, and on paper.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C6D31")

# What is drawn over the steps: the name in the metrics, and how a person calls it.
CURVES = {
    "validation/{metric}": "Validation {metric}",
    "loss": "Training loss",
    "active_fraction": "Active fraction: triplets whose penalty is not zero",
    "hardness": "Hardness: mean d(a, n) minus mean d(a, p) of mined triplets",
    "embedding_spread": "Spread of the embeddings: root mean squared distance to their mean",
}


def render(findings: Findings) -> str:
    """The page, with the plotting library in it."""
    sweep = findings.sweep
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("experiments", "templates"), autoescape=True
    )
    settings = [name for name, _ in sweep["settings"]]
    arms = [name for name, _ in sweep["arms"]]
    colours = {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(arms)}
    figures = [figure for name in settings for figure in _figures(findings, name, colours)]
    return environment.get_template("report.html").render(
        sweep=sweep,
        settings=settings,
        arms=arms,
        colours=colours,
        rows=[_row(row, sweep["metric"]) for row in findings.summary.to_dict("records")],
        best_of=[best_of_in_words(row) for row in findings.best_of.to_dict("records")],
        raw={
            name: findings.summary[findings.summary.setting == name].raw_pixels.mean()
            for name in settings
        },
        collapsed=findings.runs[findings.runs.collapsed_at.notna()].to_dict("records"),
        failed=findings.runs[findings.runs.state == "failed"].to_dict("records"),
        unfinished=int((~findings.runs.state.isin(["done", "failed"])).sum()),
        differences=[(name, _fields(fields)) for name, fields in sweep["arms"]],
        of_settings=[(name, _fields(fields)) for name, fields in sweep["settings"]],
        figures=[{"title": title, "setting": setting} for title, setting, _ in figures],
        figures_json=_for_script([json.loads(figure.to_json()) for _, _, figure in figures]),
        plotly=plotly.offline.get_plotlyjs(),
    )


def _for_script(content):
    """JSON that may stand in a script: no text in it can end the script."""
    return files.as_json(content).replace("<", "\\u003c")


def _row(row, metric):
    seconds = row["seconds"]
    return {
        "setting": row["setting"],
        "arm": row["arm"],
        "runs": row["runs"],
        "score": plus_minus(row[metric], row["ci95_low"], row["ci95_high"]),
        "difference": plus_minus(
            row["difference"], row["difference_low"], row["difference_high"], "+"
        ),
        "p": p_in_words(row["p_value"]),
        "p_holm": p_in_words(row["p_holm"]),
        "collapsed": row["collapsed"] or "",
        "failed": row["failed"] or "",
        "seconds": "" if np.isnan(seconds) else f"{seconds:.1f}",
    }


def _fields(fields):
    return [f"{name} = {value!r}" for name, value in fields.items()]


def _figures(findings, setting, colours):
    """Title, setting and figure of every plot of one setting."""
    sweep, metric = findings.sweep, findings.sweep["metric"]
    here = findings.summary[findings.summary.setting == setting]
    runs = findings.runs[(findings.runs.setting == setting) & (findings.runs.state == "done")]
    yield (
        f"{metric} on the test split: mean, 95% interval and every seed",
        setting,
        _scores(here, runs, metric, colours),
    )
    yield (
        f"Paired difference to {sweep['reference']}, with its 95% interval",
        setting,
        _differences(here, colours, sweep["reference"], metric),
    )
    if not len(findings.curves):
        return
    curves = findings.curves[findings.curves.setting == setting]
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
            collapsed = findings.runs[findings.runs.setting == setting]
            yield title, setting, _over_steps(curves, column, title, colours, collapsed)
    yield (
        "Wall time of a run, or its share of what was trained together",
        setting,
        _seconds(runs, colours),
    )


def _layout(figure, **more):
    figure.update_layout(
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        height=340,
        legend={"orientation": "h", "y": -0.25},
        **more,
    )
    return figure


def _scores(here, runs, metric, colours):
    figure = go.Figure()
    for row in here.to_dict("records"):
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
    raw = here.raw_pixels.mean()
    if not np.isnan(raw):
        figure.add_vline(
            x=raw, line_dash="dot", annotation_text="raw pixels", annotation_position="bottom right"
        )
    figure.update_yaxes(autorange="reversed")
    return _layout(figure, xaxis_title=metric)


def _differences(here, colours, reference, metric):
    figure = go.Figure()
    for row in here[here.arm != reference].to_dict("records"):
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


def _seconds(runs, colours):
    figure = go.Figure()
    for arm, colour in colours.items():
        mine = runs[runs.arm == arm].seconds.dropna()
        if len(mine):
            figure.add_bar(
                x=[arm],
                y=[mine.mean()],
                marker_color=colour,
                hovertemplate="%{y:.1f} s<extra>" + arm + "</extra>",
                legendgroup=arm,
                showlegend=False,
            )
    return _layout(figure, yaxis_title="seconds")
