"""The common look of plots: colours, lines, legends and the names of metrics."""

import matplotlib.axes
import matplotlib.colors

# Okabe and Ito 2008, https://jfly.uni-koeln.de/color, without black, and without yellow, which is
# too light on paper.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
GOOD, BAD, GREY = COLORS[0], COLORS[3], "#888888"
# Classes of the same colour differ in their marker.
MARKERS = "os^vDPX*<>"


def line(number: int) -> dict[str, str]:
    """The look of the n-th line; lines also differ in their dashes."""
    return {"color": COLORS[number % len(COLORS)], "ls": ("-", "--", ":", "-.")[number % 4]}


def legend_above(axes: matplotlib.axes.Axes) -> None:
    """Puts the legend above the axes, since curves may leave no corner free."""
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8)


def root_scale() -> matplotlib.colors.Normalize:
    """A colour scale by the square root, so that small shares show."""
    return matplotlib.colors.PowerNorm(0.5, vmin=0)


def without_ticks(axes: matplotlib.axes.Axes) -> matplotlib.axes.Axes:
    """Removes the ticks of both axes, whose values mean nothing."""
    axes.set_xticks([])
    axes.set_yticks([])
    return axes


def plain(name: object) -> str:
    """A name as the text of a plot, in which two dollar signs do not enclose mathematics."""
    return str(name).replace("$", r"\$")


def in_words(column: str) -> str:
    """The name of a metric as the label of an axis."""
    names = {
        "map_at_r": "MAP@R",
        "precision_at_1": "precision at 1",
        "r_precision": "R-precision",
        "validation/map_at_r": "validation MAP@R",
    }
    return names.get(column, column.replace("_", " "))
