"""A batch as the engine takes it: this device's anchors, and the candidates of all devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import arguments, distances, errors
from triplet_jax.devices import collectives
from triplet_jax.engine import positive_masks, relation_masks
from triplet_jax.engine import references as engine_references
from triplet_jax.engine.references import References
from triplet_jax.relations import Relation

Masks = positive_masks.LabelRuns | relation_masks.RelationMasks
"""Which candidates are an anchor's positives, and which its negatives."""


class Anchors(NamedTuple):
    """All anchors of a device, or a tile of them."""

    rows: Float[Array, "anchors dim"]
    """Prepared by the metric of the loss."""
    masks: Masks
    """Which candidates are each anchor's positives, and which its negatives."""
    index: Int[Array, "anchors"]
    """Their places in the global batch, on which random draws depend."""
    rows_to_mine: Float[Array, "anchors dim"] | None = None
    """Prepared by the metric of mining, if that is another."""

    @property
    def for_the_miner(self) -> Float[Array, "anchors dim"]:
        """The rows whose distances the miner sees."""
        return self.rows if self.rows_to_mine is None else self.rows_to_mine


class Candidates(NamedTuple):
    """What all anchors are compared with, sorted by label if there are labels."""

    rows: Float[Array, "candidates dim"]
    """Prepared by the metric of the loss."""
    rows_to_mine: Float[Array, "candidates dim"] | None = None
    """Prepared by the metric of mining, if that is another."""

    @property
    def for_the_miner(self) -> Float[Array, "candidates dim"]:
        """The rows to which the miner sees distances."""
        return self.rows if self.rows_to_mine is None else self.rows_to_mine


class Batch(NamedTuple):
    """Anchors and candidates of a loss."""

    anchors: Anchors
    candidates: Candidates
    is_symmetric: bool
    """Whether the candidates are these anchors, in another order."""

    @property
    def pairs(self) -> dict[str, Float[Array, ""]]:
        """How many pairs of one class and of two classes this device's anchors have."""
        masks = self.anchors.masks
        return {
            "num_positive_pairs": jnp.sum(1.0 * masks.positives),
            "num_negative_pairs": jnp.sum(1.0 * masks.negatives(len(self.candidates.rows))),
        }


def prepare(
    metric: distances.Metric,
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels | Relation,
    *,
    references: Shaped[Array | np.ndarray, "references dim"] | References | None,
    reference_labels: arguments.Labels | None,
    mask: Bool[Array | np.ndarray, "batch"] | None,
    axis_name: str | None,
    mining_metric: distances.Metric | None = None,
) -> Batch:
    """Checks what a loss is given, gathers the candidates of all devices, and finds the positives.

    Candidates are sorted by label if there are labels.

    Arguments are those of `losses.triplet_loss`.

    Raises:
      InputError: an array is refused by `arguments` or has no rows, or references come without
        labels, or with labels beside a relation.
    """
    relation = jax.tree.map(jnp.asarray, labels) if isinstance(labels, Relation) else None
    references = engine_references.of_arguments(references, reference_labels, relation)
    embeddings = arguments.rows("embeddings", embeddings)
    if relation is None:
        labels = arguments.class_numbers("labels", labels, len(embeddings))
    else:
        labels = None
    mask = arguments.mask("mask", mask, len(embeddings))
    if not len(embeddings):
        raise errors.InputError("embeddings have no rows: pass at least one.")
    if references is not None:
        references = engine_references.checked(references, embeddings, axis_name)
    embeddings, labels, mask, references, relation = collectives.whole(
        (embeddings, labels, mask, references, relation)
    )
    count = len(embeddings)
    index = collectives.own_rows(count, axis_name)
    # Without references the batches of all devices are the candidates, each anchor among them.
    among = References(embeddings, labels, mask, own=index) if references is None else references
    candidates, candidate_labels, shown = _of_all_devices(among, axis_name)
    embeddings, candidates = (
        without_hidden(x, counts, candidates, shown)
        for x, counts in ((embeddings, mask), (candidates, shown))
    )
    if relation is None:
        order, masks = _by_label(labels, mask, among.own, candidate_labels, shown)
        candidates = candidates[order]
    else:
        itself = jnp.full(count, -1) if among.own is None else among.own
        masks = relation_masks.of_relation(relation, len(candidates), itself, mask, shown)
    rows, columns = distances.prepared(metric, embeddings, candidates)
    to_mine = columns_to_mine = None
    if mining_metric is not None:
        to_mine, columns_to_mine = distances.prepared(mining_metric, embeddings, candidates)
    return Batch(
        Anchors(rows, masks, index, to_mine),
        Candidates(columns, columns_to_mine),
        is_symmetric=relation is None and references is None and collectives.count(axis_name) == 1,
    )


def without_hidden(
    rows: Float[Array, "rows dim"],
    counts: Bool[Array, "rows"] | None,
    candidates: Float[Array, "candidates dim"],
    shown: Bool[Array, "candidates"] | None,
) -> Float[Array, "rows dim"]:
    """The rows, with the mean of the candidates that are shown in place of rows that do not count.

    What does not count then has no part in the candidates' centre, nor, if it is NaN, in a product.
    """
    if counts is None:
        return rows
    shown = jnp.ones(len(candidates), bool) if shown is None else shown
    total = jnp.sum(jnp.where(shown[:, None], candidates, 0), axis=0)
    mean = jax.lax.stop_gradient(total / jnp.maximum(jnp.sum(shown), 1))
    return jnp.where(counts[:, None], rows, mean.astype(rows.dtype))


def _by_label(
    labels: Int[Array, "batch"],
    mask: Bool[Array, "batch"] | None,
    own: Int[Array, "batch"] | None,
    candidate_labels: Int[Array, "candidates"],
    shown: Bool[Array, "candidates"] | None,
) -> tuple[Int[Array, "candidates"], positive_masks.LabelRuns]:
    """The order that sorts the candidates by label, and where each anchor's positives are in it."""
    if shown is None and mask is not None:
        shown = jnp.ones(len(candidate_labels), bool)
    order, sorted_labels = positive_masks.by_label(candidate_labels, shown)
    itself = jnp.full(len(labels), -1)
    if own is not None:
        itself = jnp.where(own < 0, -1, jnp.argsort(order)[own])
    runs = positive_masks.label_runs(labels, sorted_labels, itself)
    if shown is not None:
        runs = runs.hiding(jnp.ones(len(labels), bool) if mask is None else mask, jnp.sum(shown))
    return order, runs


def _of_all_devices(
    among: References, axis_name: str | None
) -> tuple[
    Float[Array, "candidates dim"],
    Int[Array, "candidates"] | None,
    Bool[Array, "candidates"] | None,
]:
    """Rows, labels and mask of the candidates."""
    arrays = (among.embeddings, among.labels, among.mask)
    return arrays if among.shared else collectives.gather(arrays, axis_name)
