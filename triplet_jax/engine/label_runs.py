"""Which candidates are an anchor's positives, and which its negatives.

Candidates are sorted by label once a batch. The candidates that share an anchor's label
are then one contiguous run, so an anchor's positives can be cut out of its row of
distances instead of being searched for: a row of n with K positives costs n + K.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


class Runs(NamedTuple):
    """Where each anchor's label stands among the sorted candidates, `[start, stop)`, and itself."""

    start: Int[Array, "anchors"]
    stop: Int[Array, "anchors"]
    itself: Int[Array, "anchors"]
    """Its own place, -1 where the anchor is no candidate."""
    shown: Int[Array, "anchors"] | None = None
    """How many candidates it sees, the first of the sorted ones; None where all."""

    @property
    def positives(self) -> Int[Array, "anchors"]:
        """How many positives each anchor has; it is none itself."""
        is_seen = (self.start <= self.itself) & (self.itself < self.stop)
        return self.stop - self.start - is_seen

    def negatives(self, candidates: int) -> Int[Array, "anchors"]:
        """How many negatives each anchor has among so many candidates."""
        return (candidates if self.shown is None else self.shown) - (self.stop - self.start)

    def from_place(self, first: Int[Array, ""]) -> "Runs":
        """The same among the candidates from a place on."""
        shown = None if self.shown is None else jnp.maximum(self.shown - first, 0)
        return Runs(self.start - first, self.stop - first, self.itself - first, shown)

    def hiding(self, mask: Bool[Array, "anchors"], shown: Int[Array, ""]) -> "Runs":
        """The same where only the first `shown` candidates count, and anchors of the mask."""
        return Runs(
            jnp.where(mask, jnp.minimum(self.start, shown), 0),
            jnp.where(mask, jnp.minimum(self.stop, shown), 0),
            self.itself,
            jnp.where(mask, shown, 0),
        )


def by_label(
    labels: Int[Array, "candidates"], shown: Bool[Array, "candidates"] | None = None
) -> tuple[Int[Array, "candidates"], Int[Array, "candidates"]]:
    """The order that sorts candidates by label, and the labels in it.

    What is not shown stands last, under a label that keeps the whole in order.
    """
    if shown is None:
        order = jnp.argsort(labels)
    else:
        labels = jnp.where(shown, labels, jnp.iinfo(jnp.int32).max)
        order = jnp.lexsort((~shown, labels))
    return order, labels[order]


def label_runs(
    labels: Int[Array, "anchors"],
    sorted_labels: Int[Array, "candidates"],
    itself: Int[Array, "anchors"],
) -> Runs:
    """The run of every anchor's label; empty where no candidate has the label."""
    # For each step of a loop a GPU has to be started anew.
    method = "scan" if jax.default_backend() == "cpu" else "scan_unrolled"
    find = functools.partial(jnp.searchsorted, sorted_labels, labels, method=method)
    return Runs(find(side="left"), find(side="right"), itself)


def positive_places(
    runs: Runs, width: int
) -> tuple[Int[Array, "anchors positives"], Bool[Array, "anchors positives"]]:
    """Where an anchor's positives stand, in `width` places, and which of these hold one.

    `width` is static and at least the number of positives; the places left over are padding.
    """
    places = runs.start[:, None] + jnp.arange(width)
    past_itself = (runs.itself >= 0)[:, None] & (places >= runs.itself[:, None])
    places = places + past_itself
    return places, places < runs.stop[:, None]


def negatives(runs: Runs, candidates: int) -> Bool[Array, "anchors candidates"]:
    """Which candidates have another label than the anchor."""
    columns = jnp.arange(candidates, dtype=jnp.uint32)
    # One comparison instead of two: what is left of the run wraps around to the far right.
    from_start = columns - runs.start.astype(jnp.uint32)[:, None]
    others = from_start >= (runs.stop - runs.start).astype(jnp.uint32)[:, None]
    if runs.shown is None:
        return others
    return others & (columns < runs.shown.astype(jnp.uint32)[:, None])


def widths(candidates: int) -> list[int]:
    """The static numbers of places for positives that a compiled program offers.

    Shapes are static in a compiled program, the number of positives is not, so there is a
    branch for every width, and the least that suffices is run. They grow by 2.4: closer
    together would waste fewer places and take longer to compile, as would small widths
    where all is small. Kernels of an accelerator take longest to compile, and there they grow by 5.
    """
    growth = 2.4 if jax.default_backend() == "cpu" else 5.0
    offered = []
    width = max(3, 2**16 // max(1, candidates**2))
    while width < candidates:
        offered.append(width)
        width = int(growth * width) + 1
    return [*offered, candidates]
