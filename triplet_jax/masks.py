"""Which candidates are an anchor's positives, and which its negatives.

Candidates are sorted by label once a batch. The candidates that share an anchor's label
are then one contiguous run, so an anchor's positives can be cut out of its row of
distances instead of being searched for: a row of n with K positives costs n + K.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Runs(NamedTuple):
    """Where each anchor's label stands among the sorted candidates: `[start, stop)`."""

    start: Int[Array, "anchors"]
    stop: Int[Array, "anchors"]


def label_runs(labels: Int[Array, "anchors"], sorted_labels: Int[Array, "candidates"]) -> Runs:
    """The run of every anchor's label; empty where no candidate has the label."""
    return Runs(
        jnp.searchsorted(sorted_labels, labels, side="left"),
        jnp.searchsorted(sorted_labels, labels, side="right"),
    )


def split_row(
    to_candidates: Float[Array, "candidates"],
    start: Int[Array, ""],
    stop: Int[Array, ""],
    self_position: Int[Array, ""],
    width: int,
) -> tuple[Float[Array, "positives"], Bool[Array, "positives"], Bool[Array, "candidates"]]:
    """Cuts one anchor's row of distances into what a miner sees.

    Args:
      to_candidates: the anchor's distances to the candidates, sorted by label.
      start: where the run of the anchor's label starts.
      stop: where it stops.
      self_position: where the anchor itself stands, -1 if it is no candidate.
      width: the static number of places for positives, at least `stop - start`.

    Returns:
      The distances to the positives, which of these places hold a positive, and which
      candidates are negatives. An anchor is never its own positive.
    """
    places = start + jnp.arange(width)
    is_positive = (places < stop) & (places != self_position)
    to_positives = to_candidates.at[places].get(mode="clip")
    columns = jnp.arange(to_candidates.shape[0])
    is_negative = (columns < start) | (columns >= stop)
    return to_positives, is_positive, is_negative


def switch_width(longest_run: Int[Array, ""], candidates: int, branch):
    """Runs `branch(width)` with the smallest of a few static widths that hold every run.

    Shapes are static in a compiled program, the number of positives is not. Only the
    branch that is needed runs. Widths go up by four from 4 to `candidates`: by two would
    waste fewer places, and take twice as long to compile.
    """
    widths = []
    width = 4
    while width < candidates:
        widths.append(width)
        width *= 4
    widths.append(candidates)
    index = jnp.searchsorted(jnp.asarray(widths), longest_run, side="left")
    return jax.lax.switch(index, [lambda w=w: branch(w) for w in widths])
