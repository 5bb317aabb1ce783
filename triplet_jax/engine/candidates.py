"""Which rows of a batch, or of references, every anchor is compared with, over all devices."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import arguments, distances, errors
from triplet_jax.devices import collectives
from triplet_jax.engine import label_runs


class Compared(NamedTuple):
    """Anchors and what they are compared with, as the engine takes them."""

    anchors: Float[Array, "batch dim"]
    candidates: Float[Array, "candidates dim"]
    """Of all devices, sorted by label."""
    runs: label_runs.Runs
    index: Int[Array, "batch"]
    """The anchors' places in the global batch."""
    symmetric: bool
    """Whether these anchors are the candidates, and the only ones."""
    mined_anchors: Float[Array, "batch dim"] | None = None
    """As the metric prepares them that triplets are mined by, where that is another."""
    mined_candidates: Float[Array, "candidates dim"] | None = None

    @property
    def pairs(self) -> dict[str, Float[Array, ""]]:
        """How many pairs of one class and of two this device's anchors have."""
        return {
            "num_positive_pairs": jnp.sum(1.0 * self.runs.positives),
            "num_negative_pairs": jnp.sum(1.0 * self.runs.negatives(len(self.candidates))),
        }


def compared(
    metric: distances.Metric,
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    references: Shaped[Array | np.ndarray, "references dim"] | None,
    reference_labels: arguments.Labels | None,
    mask: Bool[Array | np.ndarray, "batch"] | None,
    tile_size: int | None,
    axis_name: str | None,
    shared: bool = False,
    reference_mask: Bool[Array | np.ndarray, "references"] | None = None,
    own_reference: Int[Array, "batch"] | None = None,
    mining_metric: distances.Metric | None = None,
) -> Compared:
    """Gathers and sorts what a loss compares; arguments are those of `losses.triplet_loss`.

    `shared` says that every device was given all references, and not its part of them.
    `reference_mask` says which of them count, `own_reference` which of them a row is itself.
    `mining_metric` is that of mining, if it is another than `metric`.

    Raises:
      InputError: an array is not as `arguments` wants it, references come without labels, or a
        tile size is below 1.
    """
    if (references is None) != (reference_labels is None):
        raise errors.InputError("references and reference_labels are given together or not at all.")
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    mask = arguments.mask("mask", mask, len(embeddings))
    if references is not None:
        references = arguments.rows("references", references)
        reference_labels = arguments.class_numbers(
            "reference_labels", reference_labels, len(references)
        )
        reference_mask = arguments.mask("reference_mask", reference_mask, len(references))
        arguments.check_same_dim(embeddings=embeddings, references=references)
    if not len(embeddings) or (references is not None and not len(references)):
        raise errors.InputError(
            f"embeddings have {len(embeddings)} rows and references"
            f" {'none were given' if references is None else len(references)}: at least one each."
        )
    if tile_size is not None and tile_size < 1:
        raise errors.InputError(f"tile_size={tile_size} must be at least 1, or None to choose.")
    embeddings, labels, mask = collectives.whole((embeddings, labels, mask))
    references, reference_labels, reference_mask, own_reference = collectives.whole(
        (references, reference_labels, reference_mask, own_reference)
    )
    rows = embeddings.shape[0]
    index = collectives.own_rows(rows, axis_name)
    own = references is None
    candidates = embeddings if own else references
    candidate_labels = labels if own else reference_labels
    if own or not shared:
        candidates = collectives.gather(candidates, axis_name)
        candidate_labels = collectives.gather(candidate_labels, axis_name)
    shown = None
    if own and mask is not None:
        shown = collectives.gather(mask, axis_name)
    elif reference_mask is not None:
        shown = reference_mask if shared else collectives.gather(reference_mask, axis_name)
    elif mask is not None:
        shown = jnp.ones(len(candidates), bool)
    order, sorted_labels = label_runs.by_label(candidate_labels, shown)
    itself = index if own else own_reference
    itself = jnp.full(rows, -1) if itself is None else jnp.argsort(order)[itself]
    runs = label_runs.label_runs(labels, sorted_labels, itself)
    if shown is not None:
        runs = runs.hiding(jnp.ones(rows, bool) if mask is None else mask, jnp.sum(shown))
    candidates = candidates[order]
    rows = distances.prepared(metric, embeddings, candidates)
    symmetric = own and collectives.count(axis_name) == 1
    if mining_metric is None:
        return Compared(*rows, runs, index, symmetric)
    mined = distances.prepared(mining_metric, embeddings, candidates)
    return Compared(*rows, runs, index, symmetric, *mined)
