"""Checks that a run is still learning: its metrics are finite, its embedding has not collapsed."""

import math
from collections.abc import Sequence

from triplet_jax.runs.row_files import Row

COLLAPSED_SPREAD = 0.05
"""The spread of embeddings, as a share of their length, below which they count as one point."""
ROWS = 5
"""How many logged steps in a row must show a collapse."""


class NotFiniteError(ArithmeticError):
    """The loss or the gradients are NaN or infinite."""


def check_finite(row: Row) -> None:
    """Refuses metrics that are NaN or infinite.

    Args:
      row: the metrics of one step, with `step` and `learning_rate`.

    Raises:
      NotFiniteError: the message names the step, the learning rate and the metrics.
    """
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        values = ", ".join(f"{name}={row[name]}" for name in bad)
        raise NotFiniteError(
            f"Step {row['step']} is not finite: {values} at learning rate"
            f" {row['learning_rate']:.3g}."
        )


def collapse(rows: Sequence[Row], *, level: float) -> str | None:
    """Recognises an embedding that has collapsed: it maps all inputs to one point.

    Hard mining collapses if it starts too early or the learning rate is too high (Schroff et al.
    2015, section 3.2, https://arxiv.org/abs/1503.03832). Then every distance is 0, the hinge equals
    the margin, the soft margin is ln 2, and the gradient vanishes. `ROWS` rows must agree, since
    one batch may look so by chance.

    Args:
      rows: the metrics of the logged steps so far, oldest first.
      level: the penalty of a triplet whose distances are 0.

    Returns:
      What was seen, or None.
    """
    recent = rows[-ROWS:]
    read = {"embedding_spread", "embedding_norm"} | ({"loss", "mean_d_an"} if level > 0 else set())
    # Rows from a damaged file may lack a number.
    if len(recent) < ROWS or any(read - row.keys() for row in recent):
        return None
    relative = [row["embedding_spread"] / max(row["embedding_norm"], 1e-12) for row in recent]
    if max(relative) < COLLAPSED_SPREAD:
        return (
            f"the embeddings' spread is {100 * relative[-1]:.1f}% of their length in each of the"
            f" last {ROWS} logged steps"
        )
    if level > 0 and all(
        abs(row["loss"] / level - 1) < 0.01 and row["mean_d_an"] < 0.05 * row["embedding_norm"]
        for row in recent
    ):
        return f"the loss stands at {level:.3f}, its value when all distances are 0"
    return None
