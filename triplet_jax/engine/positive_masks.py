"""Which candidates are an anchor's positives, and which its negatives.

The candidates of a batch are sorted by label once. Those that share an anchor's label are then one
run of neighbours, so that the anchor's positives need not be searched for in its row of distances:
a row of n candidates with K positives costs n + K.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from triplet_jax.engine import vmapped

_OF_CLASSES = (7, 19, 40)


class LabelRuns(NamedTuple):
    """Where the candidates of each anchor's label stand, `[start, stop)`, and the anchor itself."""

    start: Int[Array, "anchors"]
    stop: Int[Array, "anchors"]
    itself: Int[Array, "anchors"]
    """The anchor's own place among the candidates, -1 if it is none of them."""
    shown: Int[Array, "anchors"] | None = None
    """The anchor sees only so many of the sorted candidates, from the first on; None for all."""

    @property
    def positives(self) -> Int[Array, "anchors"]:
        """How many positives each anchor has. An anchor is no positive of its own."""
        is_seen = (self.start <= self.itself) & (self.itself < self.stop)
        return self.stop - self.start - is_seen

    def negatives(self, candidates: int) -> Int[Array, "anchors"]:
        """How many negatives each anchor has among so many candidates."""
        return (candidates if self.shown is None else self.shown) - (self.stop - self.start)

    def order(self) -> Int[Array, "anchors"]:
        """An order in which anchors of one class are neighbours."""
        return jnp.argsort(self.start)

    def places(
        self, width: int
    ) -> tuple[Int[Array, "anchors positives"], Bool[Array, "anchors positives"]]:
        """Where each anchor's positives stand, in `width` slots, and which slots hold one.

        `width` is static, and at least the number of positives. The slots left over are padding.
        """
        places = self.start[:, None] + jnp.arange(width)
        past_itself = (self.itself >= 0)[:, None] & (places >= self.itself[:, None])
        places = places + past_itself
        return places, places < self.stop[:, None]

    def is_negative(self, candidates: int) -> Bool[Array, "anchors candidates"]:
        """Which candidates have another label than the anchor."""
        columns = jnp.arange(candidates, dtype=jnp.uint32)
        # One comparison instead of two: a column left of the run wraps around to a large number.
        from_start = columns - self.start.astype(jnp.uint32)[:, None]
        others = from_start >= (self.stop - self.start).astype(jnp.uint32)[:, None]
        if self.shown is None:
            return others
        return others & (columns < self.shown.astype(jnp.uint32)[:, None])

    def hiding_rows_past_the_end(self, candidates: int) -> "LabelRuns":
        """The runs, such that a row of zeros that fills up a tile sees no candidate."""
        if self.shown is not None:
            return self
        return self._replace(shown=jnp.full(len(self.start), candidates))

    def from_place(self, first: Int[Array, ""]) -> "LabelRuns":
        """The runs among the candidates from a place on."""
        shown = None if self.shown is None else jnp.maximum(self.shown - first, 0)
        return LabelRuns(self.start - first, self.stop - first, self.itself - first, shown)

    def hiding(self, mask: Bool[Array, "anchors"], shown: Int[Array, ""]) -> "LabelRuns":
        """The runs when only the first `shown` candidates count, and only anchors of the mask."""
        return LabelRuns(
            jnp.where(mask, jnp.minimum(self.start, shown), 0),
            jnp.where(mask, jnp.minimum(self.stop, shown), 0),
            self.itself,
            jnp.where(mask, shown, 0),
        )


def by_label(
    labels: Int[Array, "candidates"], shown: Bool[Array, "candidates"] | None = None
) -> tuple[Int[Array, "candidates"], Int[Array, "candidates"]]:
    """The order that sorts candidates by label, and the labels in it.

    Candidates that are not shown stand last, under the largest label, so that labels stay sorted.
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
) -> LabelRuns:
    """The run of every anchor's label, which is empty if no candidate has the label."""
    # A loop costs a GPU one start of a kernel for each of its steps.
    method = "scan" if jax.default_backend() == "cpu" else "scan_unrolled"
    find = functools.partial(jnp.searchsorted, sorted_labels, labels, method=method)
    return LabelRuns(find(side="left"), find(side="right"), itself)


def widths(candidates: int) -> list[int]:
    """The numbers of slots for positives that a compiled program offers, in rising order.

    Shapes are static in a compiled program, but the number of positives is not. So the program has
    a branch for every width and takes the least that suffices. On CPUs these are 3, 7, 19 and 40,
    which suit classes of 4, 8, 16, 20, 32 and 40 examples, and then grow by a factor of 2.3: a
    smaller one would waste fewer slots and take longer to compile. Kernels of accelerators take
    longest to compile, so there the factor is 5. With few candidates, slots cost little, and the
    least width is large. A width of two thirds of the candidates or more is left out.
    """
    usual, growth = (_OF_CLASSES, 2.3) if jax.default_backend() == "cpu" else ((), 5.0)
    offered = []
    width = max(3, 2**16 // max(1, candidates**2))
    while 1.5 * width < candidates:
        offered.append(width)
        larger = (at for at in usual if at > 1.5 * width)
        width = next(larger, int(growth * width) + 1)
    return [*offered, candidates]


def by_width(
    function: Callable[..., Any],
    positives: Int[Array, "anchors"],
    candidates: int,
    *operands: Any,
) -> Any:
    """`function(width, *operands)` with the least width that holds every anchor's positives."""
    offered = widths(candidates)
    most = vmapped.largest_over_vmap(jnp.max(positives))
    branch = jnp.sum(jnp.asarray(offered) < most)
    branches = [functools.partial(function, width) for width in offered]
    return jax.lax.switch(branch, branches, *operands)
