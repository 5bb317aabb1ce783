"""Interactive maps: embeddings to hover over, drawn by plotly."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from triplet_jax.analysis import plot_style


def embedding_map(
    points: Float[np.ndarray, "examples 2"],
    labels: Int[np.ndarray, "examples"],
    class_names: Sequence[str],
    *,
    notes: Sequence[str] | None = None,
) -> go.Figure:
    """A map of embeddings whose points show their class when the mouse is over them.

    Args:
      points: the map, from `projection`.
      labels: the class of each point, an index into `class_names`.
      class_names: the names of the classes.
      notes: a further line for each point; None for none.
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
                "color": plot_style.COLORS[number % len(plot_style.COLORS)],
                "symbol": number // len(plot_style.COLORS) % 10,
            },
            text=[f"example {i}<br>{class_names[c]}<br>{notes[i]}" for i in mine],
            hoverinfo="text",
        )
    figure.update_layout(width=750, height=600, template="simple_white")
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False, scaleanchor="x")
    return figure
