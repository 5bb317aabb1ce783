"""The answers of a search: a row for each neighbour, printed as tables and drawn as pictures."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import rich.console
import rich.markup
import rich.table

from experiments.run import sheets
from experiments.run.search_threshold import Threshold
from triplet_jax.analysis import plots
from triplet_jax.data import images
from triplet_jax.data.file_names import from_text, to_text

# Up to this many queries get a table each; more share one.
_OWN_TABLES = 5


def as_table(
    queries: Sequence[pathlib.Path], nearest: Sequence[pd.DataFrame], threshold: Threshold | None
) -> pd.DataFrame:
    """Makes a row for each neighbour of each query.

    Args:
      queries: the images.
      nearest: of each, its neighbours as `Gallery.nearest` has them, the nearest first.
      threshold: up to which a neighbour is called the same; or None.

    Returns:
      `query`, `rank` (from 1), `path`, `class`, `distance`, and with a threshold `verdict`. Paths
      are text as `file_names.to_text` makes it.
    """
    parts = [
        pd.DataFrame(
            {
                "query": to_text(str(query)),
                "rank": np.arange(1, len(rows) + 1),
                "path": rows.path,
                "class": rows.label,
                "distance": rows.distance,
            }
        )
        for query, rows in zip(queries, nearest, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True)
    if threshold:
        table["verdict"] = threshold.verdicts(table.distance)
    return table


def show(answers: pd.DataFrame, folder: pathlib.Path) -> bool:
    """Prints a table for each query; for many queries one table, with the nearest image of each.

    Args:
      answers: from `as_table`.
      folder: of the gallery.

    Returns:
      Whether all neighbours were printed.
    """
    of_query = list(answers.groupby("query", sort=False))
    shown = to_text(str(folder))
    if len(of_query) <= _OWN_TABLES:
        for query, rows in of_query:
            print(f"nearest to {query} in {shown}", flush=True)
            _print_table(rows, "rank", folder)
        return True
    first = pd.DataFrame([_nearest_other(rows) for _, rows in of_query])
    paths = [os.path.abspath(from_text(query)) for query in first["query"]]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    first["query"] = [to_text(os.path.relpath(path, common)) for path in paths]
    print(f"nearest to each of {len(first):,} queries of {to_text(common)} in {shown}", flush=True)
    _print_table(first, "query", folder)
    return False


def _nearest_other(rows):
    """The first row of a query that is not the query itself, where there is one."""
    own = to_text(os.path.abspath(from_text(rows["query"].iloc[0])))
    others = rows[rows.path != own]
    return (others if len(others) else rows).iloc[0]


def _print_table(rows, first, folder):
    names = [first, "distance", "class", "image"] + ["verdict"] * ("verdict" in rows)
    table = rich.table.Table()
    for name in names:
        table.add_column("" if name == "rank" else name, overflow="fold")
    paths = [pathlib.Path(from_text(path)).relative_to(folder) for path in rows.path]
    rows = rows.assign(
        distance=rows.distance.map("{:.3f}".format), image=[to_text(str(path)) for path in paths]
    )
    for row in rows[names].astype(str).itertuples(index=False):
        table.add_row(*map(rich.markup.escape, row))
    rich.console.Console().print(table)


def draw(answers: pd.DataFrame, form: images.ImageForm, sheet: pathlib.Path) -> None:
    """Draws each query beside its neighbours; many queries need several pictures.

    Args:
      answers: from `as_table`.
      form: how images are shown.
      sheet: the first picture; the names of further ones end in a number.
    """
    of_query = list(answers.groupby("query", sort=False))
    sheets.draw(len(of_query), lambda number: _row(form, *of_query[number]), sheet)


def _row(form, query, found):
    row = [(form.read(from_text(query)), "query", "black")]
    for path, label, distance in zip(found.path, found["class"], found.distance, strict=True):
        row.append((form.read(from_text(path)), f"{label}\n{distance:.3f}".strip(), plots.GREY))
    return row
