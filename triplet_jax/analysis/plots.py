"""Pictures of embeddings, classes and mining, as matplotlib draws them.

Every function draws into `axes`, or makes a figure where several are needed, and returns
what it drew into. Colours are those of Okabe and Ito, which the colour-blind tell apart.
"""

import pathlib
from collections.abc import Mapping, Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from triplet_jax import errors, evaluation, telemetry
from triplet_jax.evaluation import comparison
from triplet_jax.runs import files

# Okabe and Ito 2008, without black and yellow, which is too light on paper.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
GOOD, BAD, GREY = COLORS[0], COLORS[3], "#888888"
# Of more classes than there are colours, the pairs of a colour differ in their marker.
_MARKERS = "os^vDPX*<>"


def check_format(path: pathlib.Path) -> str:
    """The format that the ending of a picture's file asks for.

    Raises:
      InputError: matplotlib knows no such format.
    """
    form = path.suffix.removeprefix(".").lower()
    known = matplotlib.figure.Figure().canvas.get_supported_filetypes()
    errors.check_known(f"the ending of {path}", form, known)
    return form


def write(figure: matplotlib.figure.Figure, path: pathlib.Path) -> None:
    """Writes a whole picture or none, in the format of the file's ending; see `runs.files`.

    Raises:
      InputError: matplotlib knows no such format.
      OSError: it cannot be written.
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
    """A map of embeddings, with a colour and a marker for each class and its name at its median.

    Args:
      axes: where to draw.
      points: from `projection`.
      labels: their classes, indices into `class_names`.
      class_names: the names.
      most_names: with more classes than this, none is named.
    """
    present = np.unique(labels)
    for number, c in enumerate(present):
        mine = points[labels == c]
        color = COLORS[number % len(COLORS)]
        marker = _MARKERS[number // len(COLORS) % len(_MARKERS)]
        axes.scatter(*mine.T, s=9, color=color, marker=marker, linewidths=0, alpha=0.8)
    for c in present if len(present) <= most_names else ():
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85}
        place = np.median(points[labels == c], axis=0)
        axes.annotate(class_names[c], place, ha="center", va="center", weight="bold", bbox=box)
    return _without_ticks(axes)


def confusion(axes: matplotlib.axes.Axes, table: pd.DataFrame) -> matplotlib.axes.Axes:
    """The table of `classes.confusion`; the scale is by root, so that small shares are seen."""
    picture = axes.imshow(table, cmap="Blues", norm=_root(), aspect="equal")
    axes.figure.colorbar(picture, ax=axes, label="share of the class", shrink=0.8)
    axes.set(xlabel="class of the nearest neighbour", ylabel="class")
    if len(table) <= 40:
        axes.set_xticks(range(len(table)), table.columns, rotation=90)
        axes.set_yticks(range(len(table)), table.index)
    return axes


def class_scores(
    axes: matplotlib.axes.Axes, table: pd.DataFrame, *, column: str = "map_at_r", most: int = 25
) -> matplotlib.axes.Axes:
    """One number of `classes.statistics` for each class, the worst `most` of them, as bars."""
    worst = table.sort_values(column).head(most)[::-1]
    axes.barh(worst.name, worst[column], color=COLORS[0])
    axes.set(xlabel=_in_words(column), ylabel="class")
    if len(table) > most:
        axes.set_title(f"the lowest {most} of {len(table)} classes")
    return axes


def class_tree(
    axes: matplotlib.axes.Axes, linkage: Float[np.ndarray, "merges 4"], names: Sequence[str]
) -> matplotlib.axes.Axes:
    """The tree of `classes.tree`, with a name at each leaf."""
    import scipy.cluster.hierarchy

    scipy.cluster.hierarchy.dendrogram(
        linkage,
        labels=list(names),
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
    """Distances of pairs of one class and of two, as densities.

    A margin is drawn from the median of the pairs of one class: a negative beyond the band costs
    nothing for an ordinary positive.
    """
    edges = np.linspace(0, max(np.max(same), np.max(different)), 80)
    for distances, color, name in ((same, GOOD, "same class"), (different, BAD, "different")):
        axes.hist(distances, edges, density=True, histtype="step", color=color, lw=1.8, label=name)
    if margin is not None:
        middle = float(np.median(same))
        label = f"margin {margin:g}, from the median of same"
        axes.axvspan(middle, middle + margin, color=GREY, alpha=0.2, lw=0, label=label)
    axes.set(xlabel="Euclidean distance", ylabel="density")
    _legend_above(axes)
    return axes


def roc(
    axes: matplotlib.axes.Axes,
    pairs: Mapping[str, tuple[Float[np.ndarray, "same"], Float[np.ndarray, "different"]]],
) -> matplotlib.axes.Axes:
    """True against false accepts, on a logarithmic axis: TAR at each FAR.

    Args:
      axes: where to draw.
      pairs: by name, what `evaluation.pair_distances` returns.
    """
    for number, (name, (same, different)) in enumerate(pairs.items()):
        curve = evaluation.roc(same, different)
        shown = curve.false_accepts > 0
        axes.plot(
            curve.false_accepts[shown],
            curve.true_accepts[shown],
            label=name,
            **_line(number),
        )
    axes.set(xscale="log", ylim=(0, 1.02))
    axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    return axes


def spectrum(
    axes: matplotlib.axes.Axes, spectra: Mapping[str, Float[np.ndarray, "dim"]]
) -> matplotlib.axes.Axes:
    """Shares of the variance by principal axis, of several embeddings by name."""
    for number, (name, shares) in enumerate(spectra.items()):
        seen = np.flatnonzero(shares > 1e-9)
        axes.plot(seen + 1, shares[seen], label=name, **_line(number))
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
    """Queries and their nearest neighbours, a row each; hits and misses framed and marked.

    Args:
      images: of all examples, `[examples, height, width, channels]`, uint8.
      labels: of all examples.
      class_names: names of the classes.
      queries: which examples.
      neighbours: of each query, from `evaluation.nearest`.
      distances: likewise.
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
    """Rows of images, each with a title and a colour for its title and its frame."""
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
            _without_ticks(axes)
            for spine in axes.spines.values():
                spine.set(color=color, linewidth=1.5)
    return figure


def curves(
    axes: matplotlib.axes.Axes, tables: Mapping[str, pd.DataFrame], column: str
) -> matplotlib.axes.Axes:
    """A number of `Run.metrics` over the steps, for runs by name."""
    for number, (name, table) in enumerate(tables.items()):
        known = table[["step", column]].dropna()
        axes.plot(known.step, known[column], label=name, **_line(number))
    axes.set(xlabel="step", ylabel=_in_words(column))
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
    """A number over the steps, the mean of each arm's seeds with its 95% interval.

    Args:
      axes: where to draw.
      table: with `arm`, `seed`, `step` and the number.
      column: the number.
      arms: which; None draws all.
    """
    known = table[["arm", "seed", "step", column]].dropna()
    for number, arm in enumerate(known.arm.unique() if arms is None else arms):
        of_arm = known[known.arm == arm].groupby("step")[column]
        steps, means, low, high = [], [], [], []
        for step, values in of_arm:
            found = comparison.estimate(values.to_numpy(np.float64))
            steps.append(step), means.append(found.mean)
            low.append(found.low), high.append(found.high)
        (line,) = axes.plot(steps, means, label=arm, **_line(number))
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set(xlabel="step", ylabel=_in_words(column))
    _legend_above(axes)
    return axes


def arm_scores(axes: matplotlib.axes.Axes, summary: pd.DataFrame, metric: str):
    """The mean of each arm with its 95% interval, from a sweep's `summary.csv`."""
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
    axes.set(xlabel=_in_words(metric), ylabel="arm")
    _legend_above(axes)
    return axes


def census(axes: matplotlib.axes.Axes, arrays: Mapping[str, np.ndarray]) -> matplotlib.axes.Axes:
    """The shares of easy, semi-hard and hard triplets over the steps, from a run's telemetry."""
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
    """Medians and quartiles of mined `d_ap` and `d_an` over the steps."""
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
    """`hardness` or `negative_rank` of a run's telemetry: a column a step, dark where many are."""
    edges = {"hardness": telemetry.HARDNESS_EDGES, "negative_rank": telemetry.RANK_EDGES}[name]
    labels = {
        "hardness": "(d_an - d_ap) / mean distance to negatives",
        "negative_rank": "rank of the negative: 0 nearest, 1 farthest",
    }
    steps = arrays["step"]
    half = (steps[1] - steps[0]) / 2 if len(steps) > 1 else 0.5
    ends = np.append(steps - half, steps[-1] + half)
    picture = axes.pcolormesh(ends, edges, arrays[name].T, cmap="Blues", norm=_root())
    axes.figure.colorbar(picture, ax=axes, label="share of mined triplets")
    axes.set(xlabel="step", ylabel=labels[name])
    return axes


def precision_recall(
    axes: matplotlib.axes.Axes, table: pd.DataFrame, wrong: np.ndarray
) -> matplotlib.axes.Axes:
    """How well each column of `suspects.rank` finds planted errors."""
    import sklearn.metrics

    for number, column in enumerate(("suspicion", "disagreement", "picked")):
        score = table[column].to_numpy()
        precision, recall, _ = sklearn.metrics.precision_recall_curve(wrong[table.index], score)
        average = sklearn.metrics.average_precision_score(wrong[table.index], score)
        label = f"{column}: {average:.2f}"
        axes.step(recall, precision, where="post", label=label, **_line(number))
    axes.axhline(np.mean(wrong), color=GREY, lw=1, label="by chance")
    axes.set(xlabel="recall: share of the wrong labels found", ylabel="precision", ylim=(0, 1.02))
    axes.legend(frameon=False, title="average precision")
    return axes


def changes(axes: matplotlib.axes.Axes, table: pd.DataFrame) -> matplotlib.axes.Axes:
    """Scores of queries before and after, from `compare.queries`: above the line they improved."""
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


def _line(number):
    """The look of the n-th line: neighbours differ in their dashes, too."""
    return {"color": COLORS[number % len(COLORS)], "ls": ("-", "--", ":", "-.")[number % 4]}


def _legend_above(axes):
    """Where curves may leave no corner free."""
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8)


def _root():
    import matplotlib.colors

    return matplotlib.colors.PowerNorm(0.5, vmin=0)


def _without_ticks(axes):
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def _in_words(column):
    names = {
        "map_at_r": "MAP@R",
        "precision_at_1": "precision at 1",
        "r_precision": "R-precision",
        "validation/map_at_r": "validation MAP@R",
    }
    return names.get(column, column.replace("_", " "))
