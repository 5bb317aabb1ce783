"""The answers of a classification: a row for each image, a summary, and scores where they show."""

import math
import pathlib

import numpy as np
import pandas as pd
import rich.console
import rich.markup
import rich.table

from experiments.run import queries
from experiments.run.class_rules import Threshold
from triplet_jax import evaluation
from triplet_jax.data.file_names import from_text, to_text

# The most images that are printed one by one.
_PRINTED = 20
RATES = (0.1, 0.05, 0.01)


def as_table(
    asked: queries.Queries,
    found: evaluation.NearestClasses,
    threshold: Threshold | None,
) -> pd.DataFrame:
    """Makes a row for each image.

    Args:
      asked: the images.
      found: the two nearest classes of each.
      threshold: beyond which an image is of no class; or None.

    Returns:
      `query`, `class` (the nearest), `distance`, with a threshold `verdict` ("known" or "unknown"),
      `runner_up` (the next class; empty where there is none) and its `runner_up_distance`, and
      where classes are known `label`.
    """
    names = np.append(found.names, "")[found.positions]  # -1 is the last
    distances = np.where(np.isfinite(found.distances), found.distances, np.nan)
    table = pd.DataFrame(
        {
            "query": [to_text(str(path)) for path in asked.paths],
            "class": names[:, 0],
            "distance": distances[:, 0],
        }
    )
    if threshold:
        table["verdict"] = threshold.verdicts(found.distances[:, 0])
    table["runner_up"], table["runner_up_distance"] = names[:, 1], distances[:, 1]
    if any(asked.labels):
        table["label"] = asked.labels
    return table


def show(table: pd.DataFrame, classes: np.ndarray, threshold: Threshold | None) -> None:
    """Prints how many images got which verdict, each of them where they are few, and the scores.

    Args:
      table: from `as_table`.
      classes: the names of those in the gallery.
      threshold: that of the verdicts, or None.
    """
    counts = ""
    if threshold:
        unknown = int((table.verdict == "unknown").sum())
        counts = f": {len(table) - unknown:,} known, {unknown:,} unknown"
    print(f"{len(table):,} images{counts}", flush=True)
    if len(table) <= _PRINTED:
        _show_each(table)
    else:
        print("The class of each: --output=FILE.csv or .parquet")
    if threshold:
        print(threshold)
    if "label" in table:
        _show_scores(score(table, classes, threshold))


def _show_each(table):
    names = ["image", "class", "distance", *["verdict"] * ("verdict" in table), "runner-up"]
    printed = rich.table.Table()
    for name in names:
        printed.add_column(name, overflow="fold")
    for row in table.to_dict("records"):
        runner_up = f"{row['runner_up']} {row['runner_up_distance']:.3f}"
        cells = {
            "image": to_text(pathlib.Path(from_text(row["query"])).name),
            "class": row["class"],
            "distance": f"{row['distance']:.3f}",
            "verdict": row.get("verdict"),
            "runner-up": runner_up if row["runner_up"] else "",
        }
        printed.add_row(*(rich.markup.escape(str(cells[name])) for name in names))
    rich.console.Console().print(printed)


def score(
    table: pd.DataFrame, classes: np.ndarray, threshold: Threshold | None
) -> dict[str, int | float]:
    """Scores the answers by the classes that the images have.

    Args:
      table: from `as_table`.
      classes: the names of those in the gallery.
      threshold: that of the verdicts, or None.

    Returns:
      What `evaluation.open_set` returns.
    """
    told = table[table.label != ""]
    is_known = told.label.isin(classes.tolist()).to_numpy()
    distance = told.distance.to_numpy(float)
    is_right = (told["class"] == told.label).to_numpy()
    return evaluation.open_set(
        distance[is_known],
        is_right[is_known],
        distance[~is_known],
        false_accept_rates=RATES,
        threshold=threshold and threshold.accepted.threshold,
    )


def _show_scores(scores):
    known, unknown = scores["known"], scores["unknown"]
    print(f"{known:,} images are of classes in the gallery, {unknown:,} of others")
    lines = {
        "accuracy over known classes": "accuracy",
        "ROC AUC of known against unknown": "roc_auc",
        **{
            f"DIR at a FAR of {rate:.0%}": f"dir_at_far_{rate:.0e}".replace("e-0", "e-")
            for rate in RATES
        },
        "with the threshold, known: named right": "identified",
        "  named wrongly": "misnamed",
        "  called unknown": "rejected",
        "with the threshold, unknown: called known": "false_accepts",
    }
    table = rich.table.Table(show_header=False)
    for said, name in lines.items():
        if not math.isnan(scores.get(name, math.nan)):
            table.add_row(said, f"{scores[name]:.3f}")
    rich.console.Console().print(table)
