"""Positives and negatives that are given as a matrix, and not by labels."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Shaped

from triplet_jax import errors
from triplet_jax.relations import Relation


class RelationMasks(NamedTuple):
    """The candidates of each anchor, as `positive_masks.LabelRuns` gives them for labels."""

    positive: Bool[Array, "anchors candidates"]
    negative: Bool[Array, "anchors candidates"]
    itself: Int[Array, "anchors"]
    """The anchor's own place among the candidates, -1 if it is none of them."""

    @property
    def positives(self) -> Int[Array, "anchors"]:
        """How many positives each anchor has."""
        return jnp.sum(self.positive, axis=1)

    def negatives(self, candidates: int) -> Int[Array, "anchors"]:
        """How many negatives each anchor has."""
        del candidates
        return jnp.sum(self.negative, axis=1)

    def order(self) -> Int[Array, "anchors"]:
        """An order in which neighbours have nearly as many positives."""
        return jnp.argsort(self.positives)

    def places(
        self, width: int
    ) -> tuple[Int[Array, "anchors positives"], Bool[Array, "anchors positives"]]:
        """Where each anchor's positives stand, in `width` slots, and which slots hold one."""
        places = jnp.argsort(~self.positive, axis=1, stable=True)[:, :width]
        return places, jnp.arange(width) < self.positives[:, None]

    def is_negative(self, candidates: int) -> Bool[Array, "anchors candidates"]:
        """Which candidates are negatives of the anchor."""
        del candidates
        return self.negative

    def hiding_rows_past_the_end(self, candidates: int) -> "RelationMasks":
        """These masks as they are: a row of zeros sees no candidate by them."""
        del candidates
        return self


def of_relation(
    relation: Relation,
    candidates: int,
    itself: Int[Array, "anchors"],
    mask: Bool[Array, "anchors"] | None,
    shown: Bool[Array, "candidates"] | None,
) -> RelationMasks:
    """The masks of a relation among candidates.

    Args:
      relation: its matrices have a row for each anchor.
      candidates: how many there are.
      itself: each anchor's own place among them, -1 if it is none of them.
      mask: which anchors count; None for all.
      shown: which candidates count; None for all.

    Raises:
      InputError: a matrix has another shape or is not boolean.
    """
    shape = (len(itself), candidates)
    positive = _checked("positive", relation.positive, shape)
    negative = ~positive
    if relation.negative is not None:
        negative = _checked("negative", relation.negative, shape) & ~positive
    counts = jnp.arange(candidates) != itself[:, None]
    if mask is not None:
        counts &= mask[:, None]
    if shown is not None:
        counts &= shown
    return RelationMasks(positive & counts, negative & counts, itself)


def _checked(
    name: str, given: Shaped[Array | np.ndarray, "..."], shape: tuple[int, int]
) -> Bool[Array, "anchors candidates"]:
    if jnp.shape(given) != shape or not jnp.issubdtype(jnp.result_type(given), bool):
        raise errors.InputError(
            f"relation.{name} has the shape {jnp.shape(given)} and the type"
            f" {np.dtype(jnp.result_type(given)).name}, and must be booleans {shape}: a row for"
            " each row of the batch, and a column for each candidate, which are the rows of all"
            " devices or the references."
        )
    return jnp.asarray(given)
