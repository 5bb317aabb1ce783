"""Plots of embeddings, classes, neighbours and suspects, drawn by matplotlib.

Every function draws into `axes`, or makes a figure if it needs several, and returns what it drew
into. The colours are those of Okabe and Ito, which people who are colour-blind can tell apart.
"""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from triplet_jax import errors, evaluation
from triplet_jax.analysis import plot_style, suspects
from triplet_jax.analysis.plot_style import BAD, COLORS, GOOD, GREY
from triplet_jax.runs import files


def check_format(path: pathlib.Path) -> str:
    """The format that the ending of a file's name asks for.

    Raises:
      InputError: matplotlib knows no such format.
    """
    form = path.suffix.removeprefix(".").lower()
    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    errors.check_known(f"the ending of {path}", form, known)
    return form


def write(figure: matplotlib.figure.Figure, path: pathlib.Path) -> None:
    """Writes a figure in the format of the file's ending, whole or not at all.

    Raises:
      InputError: matplotlib knows no such format.
      OSError: the file cannot be written.
    """
    form = check_format(path)
    with files.whole_file(path) as file:
        figure.savefig(file, format=form, dpi=130)


def embedding_map(
    axes: matplotlib.axes.Axes,
    points: Float[np.ndarray, "examples 2"],
    labels: Int[np.ndarray, "examples"],
    class_names: Sequence[str],
    *,
    most_names: int = 30,
) -> matplotlib.axes.Axes:
    """A map of embeddings: each class has a colour and a marker, and its name at its median.

    Args:
      axes: where to draw.
      points: the map, from `projection`.
      labels: the class of each point, an index into `class_names`.
      class_names: the names of the classes.
      most_names: if there are more classes than this, no names are shown.
    """
    present = np.unique(labels)
    for number, c in enumerate(present):
        mine = points[labels == c]
        color = COLORS[number % len(COLORS)]
        marker = plot_style.MARKERS[number // len(COLORS) % len(plot_style.MARKERS)]
        axes.scatter(*mine.T, s=9, color=color, marker=marker, linewidths=0, alpha=0.8)
    for c in present if len(present) <= most_names else ():
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
        place = np.median(points[labels == c], axis=0)
        name = plot_style.plain(class_names[c])
        axes.annotate(name, place, ha="center", va="center", weight="bold", bbox=box)
    return plot_style.without_ticks(axes)


def confusion(axes: matplotlib.axes.Axes, table: pd.DataFrame) -> matplotlib.axes.Axes:
    """The table of `classes.confusion`, coloured by square roots, so that small shares show."""
    image = axes.imshow(table, cmap="Blues", norm=plot_style.root_scale(), aspect="equal")
    axes.figure.colorbar(image, ax=axes, label="share of the class", shrink=0.8)
    axes.set(xlabel="class of the nearest neighbour", ylabel="class")
    if len(table) <= 40:
        axes.set_xticks(range(len(table)), map(plot_style.plain, table.columns), rotation=90)
        axes.set_yticks(range(len(table)), map(plot_style.plain, table.index))
    return axes


def class_scores(
    axes: matplotlib.axes.Axes, table: pd.DataFrame, *, column: str = "map_at_r", most: int = 25
) -> matplotlib.axes.Axes:
    """One column of `classes.statistics` as bars, for the classes with the lowest values.

    Args:
      axes: where to draw.
      table: from `classes.statistics`.
      column: the column.
      most: how many classes are shown at most.
    """
    worst = table.sort_values(column).head(most)[::-1]
    axes.barh(worst.name.map(plot_style.plain), worst[column], color=COLORS[0])
    axes.set(xlabel=plot_style.in_words(column), ylabel="class")
    if len(table) > most:
        axes.set_title(f"the lowest {most} of {len(table)} classes")
    return axes


def class_tree(
    axes: matplotlib.axes.Axes, linkage: Float[np.ndarray, "merges 4"], names: Sequence[str]
) -> matplotlib.axes.Axes:
    """The tree of `classes.tree`, with the name of a class at each leaf."""
    import scipy.cluster.hierarchy

    scipy.cluster.hierarchy.dendrogram(
        linkage,
        labels=list(map(plot_style.plain, names)),
        orientation="right",
        ax=axes,
        link_color_func=lambda _: COLORS[0],
    )
    axes.set(xlabel="distance of joined classes (Ward)", ylabel="class")
    return axes


def pair_distances(
    axes: matplotlib.axes.Axes,
    same: Float[np.ndarray, "same"],
    different: Float[np.ndarray, "different"],
    *,
    margin: float | None = None,
) -> matplotlib.axes.Axes:
    """The densities of the distances of pairs of one class, and of pairs of two classes.

    Args:
      axes: where to draw.
      same: distances of pairs of one class, from `evaluation.pair_distances`; there may be none.
      different: distances of pairs of two classes; there may be none.
      margin: draws a band of this width from the median of `same`; None draws none. A negative
        beyond the band costs nothing together with a typical positive.
    """
    farthest = max(np.max(same, initial=0), np.max(different, initial=0)) or 1.0
    look = {"density": True, "histtype": "step", "lw": 1.8}
    for distances, color, name in ((same, GOOD, "same class"), (different, BAD, "different")):
        if len(distances):
            axes.hist(distances, np.linspace(0, farthest, 80), color=color, label=name, **look)
    if margin is not None and len(same):
        middle = float(np.median(same))
        label = f"margin {margin:g}, from the median of same"
        axes.axvspan(middle, middle + margin, color=GREY, alpha=0.2, lw=0, label=label)
    axes.set(xlabel="Euclidean distance", ylabel="density")
    plot_style.legend_above(axes)
    return axes


def roc(
    axes: matplotlib.axes.Axes,
    pairs: Mapping[str, tuple[Float[np.ndarray, "same"], Float[np.ndarray, "different"]]],
) -> matplotlib.axes.Axes:
    """ROC curves: the true accept rate at each false accept rate, on a logarithmic axis.

    Args:
      axes: where to draw.
      pairs: for each curve its name and what `evaluation.pair_distances` returns.
    """
    for number, (name, (same, different)) in enumerate(pairs.items()):
        curve = evaluation.roc(same, different)
        shown = curve.false_accepts > 0
        axes.plot(
            curve.false_accepts[shown],
            curve.true_accepts[shown],
            label=name,
            **plot_style.line(number),
        )
    axes.set(xscale="log", ylim=(0, 1.02))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return axes


def spectrum(
    axes: matplotlib.axes.Axes, spectra: Mapping[str, Float[np.ndarray, "dim"]]
) -> matplotlib.axes.Axes:
    """The shares of the variance along principal axes, for named results of `geometry.spectrum`."""
    for number, (name, shares) in enumerate(spectra.items()):
        seen = np.flatnonzero(shares > 1e-9)
        axes.plot(seen + 1, shares[seen], label=name, **plot_style.line(number))
    axes.set(yscale="log", xlabel="principal axis", ylabel="share of the variance")
    axes.legend(frameon=False)
    return axes


def gallery(
    images: np.ndarray,
    labels: Int[np.ndarray, "examples"],
    class_names: Sequence[str],
    queries: Sequence[int],
    neighbours: Int[np.ndarray, "queries neighbours"],
    distances: Float[np.ndarray, "queries neighbours"] | None = None,
) -> matplotlib.figure.Figure:
    """Queries and their nearest neighbours, in a row for each query; hits and misses are marked.

    Args:
      images: all examples, `[examples, height, width, channels]` of uint8.
      labels: the class of every example.
      class_names: the names of the classes.
      queries: the positions of the queries.
      neighbours: the positions of their neighbours, from `evaluation.nearest`.
      distances: the distances of these neighbours, or None to show none.
    """
    rows = []
    for row, query in enumerate(queries):
        tiles = [(images[query], str(class_names[labels[query]]), "black")]
        for column, found in enumerate(neighbours[row]):
            hit = labels[found] == labels[query]
            title = f"{'✓' if hit else '✗'} {class_names[labels[found]]}"
            if distances is not None:
                title += f"\n{distances[row, column]:.2f}"
            tiles.append((images[found], title, GOOD if hit else BAD))
        rows.append(tiles)
    return contact_sheet(rows)


def contact_sheet(
    rows: Sequence[Sequence[tuple[np.ndarray, str, str]]],
) -> matplotlib.figure.Figure:
    """Rows of images.

    Args:
      rows: for every image its pixels `[height, width, channels]`, its title, and the colour of
        the title and the frame. Rows may differ in length.
    """
    columns = max(len(row) for row in rows)
    figure, grid = plt.subplots(
        len(rows),
        columns,
        figsize=(1.05 * columns, 1.4 * len(rows)),
        layout="constrained",
        squeeze=False,
    )
    for axes_of_row, row in zip(grid, rows, strict=True):
        for axes in axes_of_row[len(row) :]:
            axes.set_axis_off()
        for axes, (pixels, title, color) in zip(axes_of_row, row, strict=False):
            axes.imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray")
            axes.set_title(title, fontsize=7, color=color, parse_math=False)
            plot_style.without_ticks(axes)
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=1.5)
    return figure


def precision_recall(
    axes: matplotlib.axes.Axes, table: pd.DataFrame, wrong: np.ndarray
) -> matplotlib.axes.Axes:
    """Precision over recall with which each column of `suspects.rank` finds planted errors.

    Args:
      axes: where to draw.
      table: from `suspects.rank`.
      wrong: whether the label of each example is wrong.
    """
    import sklearn.metrics

    for number, column in enumerate(("suspicion", "disagreement", "picked")):
        score = suspects.finite_order(table[column].to_numpy())
        precision, recall, _ = sklearn.metrics.precision_recall_curve(wrong[table.index], score)
        average = sklearn.metrics.average_precision_score(wrong[table.index], score)
        label = f"{column}: {average:.2f}"
        axes.step(recall, precision, where="post", label=label, **plot_style.line(number))
    axes.axhline(np.mean(wrong), color=GREY, lw=1, label="by chance")
    axes.set(xlabel="recall: share of the wrong labels found", ylabel="precision", ylim=(0, 1.02))
    axes.legend(frameon=False, title="average precision")
    return axes


def changes(axes: matplotlib.axes.Axes, table: pd.DataFrame) -> matplotlib.axes.Axes:
    """The scores of queries before and after, from `queries.changes`; above the line they rose."""
    better = table.change > 0
    worse = table.change < 0
    for rows, color, marker in (
        (better, GOOD, "o"),
        (worse, BAD, "x"),
        (~better & ~worse, GREY, "."),
    ):
        axes.scatter(
            table.before[rows], table.after[rows], s=10, color=color, marker=marker, alpha=0.5
        )
    axes.axline((0, 0), slope=1, color=GREY, lw=1)
    axes.set(
        xlabel="before", ylabel="after", aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03)
    )
    axes.set_title(f"{better.sum()} queries better, {worse.sum()} worse")
    return axes
