"""Maps to hover over, as plotly draws them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from triplet_jax.analysis import plots


def embedding_map(
    points: Float[np.ndarray, "examples 2"],
    labels: Int[np.ndarray, "examples"],
    class_names: Sequence[str],
    *,
    notes: Sequence[str] | None = None,
) -> go.Figure:
    """A map whose points tell their class, and `notes`, when the mouse is over them.

    Args:
      points: from `projection`.
      labels: their classes, indices into `class_names`.
      class_names: the names.
      notes: a line more for each point.
    """
    notes = [""] * len(labels) if notes is None else notes
    figure = go.Figure()
    for number, c in enumerate(np.unique(labels)):
        mine = np.flatnonzero(labels == c)
        figure.add_scattergl(
            x=points[mine, 0],
            y=points[mine, 1],
            mode="markers",
            name=str(class_names[c]),
            marker={
                "size": 5,
                "color": plots.COLORS[number % len(plots.COLORS)],
                "symbol": number // len(plots.COLORS) % 10,
            },
            text=[f"example {i}<br>{class_names[c]}<br>{notes[i]}" for i in mine],
            hoverinfo="text",
        )
    figure.update_layout(width=750, height=600, template="simple_white")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure
