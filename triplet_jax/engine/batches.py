"""A batch as the engine takes it: this device's anchors, and the candidates of all devices."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import arguments, distances, errors
from triplet_jax.devices import collectives
from triplet_jax.engine import positive_masks
from triplet_jax.engine import references as engine_references
from triplet_jax.engine.references import References


class Anchors(NamedTuple):
    """All anchors of a device, or a tile of them."""

    rows: Float[Array, "anchors dim"]
    """Prepared by the metric of the loss."""
    runs: positive_masks.LabelRuns
    """Where each anchor's positives stand among the candidates."""
    index: Int[Array, "anchors"]
    """Their places in the global batch, on which random draws depend."""
    rows_to_mine: Float[Array, "anchors dim"] | None = None
    """Prepared by the metric of mining, if that is another."""

    @property
    def for_the_miner(self) -> Float[Array, "anchors dim"]:
        """The rows whose distances the miner sees."""
        return self.rows if self.rows_to_mine is None else self.rows_to_mine


class Candidates(NamedTuple):
    """What all anchors are compared with, sorted by label."""

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
        runs = self.anchors.runs
        return {
            "num_positive_pairs": jnp.sum(1.0 * runs.positives),
            "num_negative_pairs": jnp.sum(1.0 * runs.negatives(len(self.candidates.rows))),
        }


def prepare(
    metric: distances.Metric,
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    references: Shaped[Array | np.ndarray, "references dim"] | References | None,
    reference_labels: arguments.Labels | None,
    mask: Bool[Array | np.ndarray, "batch"] | None,
    axis_name: str | None,
    mining_metric: distances.Metric | None = None,
) -> Batch:
    """Checks what a loss is given, gathers the candidates of all devices and sorts them by label.

    Arguments are those of `losses.triplet_loss`.

    Raises:
      InputError: an array is not as `arguments` wants it or has no rows, or references come without
        labels.
    """
    references = engine_references.of_arguments(references, reference_labels)
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    mask = arguments.mask("mask", mask, len(embeddings))
    if references is not None:
        references = engine_references.checked(references, embeddings)
    if not len(embeddings):
        raise errors.InputError("embeddings have no rows: pass at least one.")
    embeddings, labels, mask, references = collectives.whole((embeddings, labels, mask, references))
    count = len(embeddings)
    index = collectives.own_rows(count, axis_name)
    # Without references the batches of all devices are the candidates, each anchor among them.
    among = References(embeddings, labels, mask, own=index) if references is None else references
    candidates, candidate_labels, shown = _of_all_devices(among, axis_name)
    if shown is None and mask is not None:
        shown = jnp.ones(len(candidates), bool)
    order, sorted_labels = positive_masks.by_label(candidate_labels, shown)
    itself = jnp.full(count, -1) if among.own is None else jnp.argsort(order)[among.own]
    runs = positive_masks.label_runs(labels, sorted_labels, itself)
    if shown is not None:
        runs = runs.hiding(jnp.ones(count, bool) if mask is None else mask, jnp.sum(shown))
    candidates = candidates[order]
    rows, columns = distances.prepared(metric, embeddings, candidates)
    to_mine = columns_to_mine = None
    if mining_metric is not None:
        to_mine, columns_to_mine = distances.prepared(mining_metric, embeddings, candidates)
    return Batch(
        Anchors(rows, runs, index, to_mine),
        Candidates(columns, columns_to_mine),
        is_symmetric=references is None and collectives.count(axis_name) == 1,
    )


def _of_all_devices(
    among: References, axis_name: str | None
) -> tuple[
    Float[Array, "candidates dim"], Int[Array, "candidates"], Bool[Array, "candidates"] | None
]:
    """Rows, labels and mask of the candidates."""
    arrays = (among.embeddings, among.labels, among.mask)
    return arrays if among.shared else collectives.gather(arrays, axis_name)
