"""Which rows every anchor is compared with: those of the batch, or references, of all devices."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import arguments, distances, errors
from triplet_jax.devices import collectives
from triplet_jax.engine import label_runs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class References:
    """Rows that a batch is compared with in place of its own: proxies, a memory, the other tower.

    A pytree, so that it may be passed through `jax.jit`; the gradient reaches `embeddings`.
    """

    embeddings: Shaped[Array | np.ndarray, "references dim"]
    labels: arguments.Labels
    """Their classes, a list or an array `[references]`."""
    mask: Bool[Array | np.ndarray, "references"] | None = None
    """Which of them count; None for all."""
    shared: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether every device has all references, as with proxies or a memory. If not, each device has
    its own part of them."""
    own: Int[Array | np.ndarray, "batch"] | None = None
    """For every row of the batch, the place of the reference that is the same example, embedded in
    some other way. It has the row's class, but is no positive of the row. None where no reference
    is such an example."""


def of_arguments(
    references: Shaped[Array | np.ndarray, "references dim"] | References | None,
    reference_labels: arguments.Labels | None,
) -> References | None:
    """The references of a public loss, which takes an array and its labels, or both in one.

    Raises:
      InputError: an array comes without labels, or labels without an array or beside `References`.
    """
    if isinstance(references, References):
        if reference_labels is not None:
            raise errors.InputError(
                "reference_labels are given beside references=References(...), which holds its own"
                " labels: leave reference_labels out."
            )
        return references
    if (references is None) != (reference_labels is None):
        raise errors.InputError("references and reference_labels are given together or not at all.")
    return None if references is None else References(references, reference_labels)


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
    references: References | None,
    mask: Bool[Array | np.ndarray, "batch"] | None,
    axis_name: str | None,
    mining_metric: distances.Metric | None = None,
) -> Compared:
    """Gathers and sorts what a loss compares; arguments are those of `losses.triplet_loss`.

    `mining_metric` is that of mining, if it is another than `metric`.

    Raises:
      InputError: an array is not as `arguments` wants it, or has no rows.
    """
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    mask = arguments.mask("mask", mask, len(embeddings))
    references = None if references is None else _checked(references, embeddings)
    if not len(embeddings):
        raise errors.InputError("embeddings have no rows: pass at least one.")
    embeddings, labels, mask, references = collectives.whole((embeddings, labels, mask, references))
    rows = len(embeddings)
    index = collectives.own_rows(rows, axis_name)
    # Without references, the batches of all devices are the candidates, each anchor among them.
    among = References(embeddings, labels, mask, own=index) if references is None else references
    candidates, candidate_labels, shown = _everywhere(among, axis_name)
    if shown is None and mask is not None:
        shown = jnp.ones(len(candidates), bool)
    order, sorted_labels = label_runs.by_label(candidate_labels, shown)
    itself = jnp.full(rows, -1) if among.own is None else jnp.argsort(order)[among.own]
    runs = label_runs.label_runs(labels, sorted_labels, itself)
    if shown is not None:
        runs = runs.hiding(jnp.ones(rows, bool) if mask is None else mask, jnp.sum(shown))
    candidates = candidates[order]
    prepared = distances.prepared(metric, embeddings, candidates)
    symmetric = references is None and collectives.count(axis_name) == 1
    if mining_metric is None:
        return Compared(*prepared, runs, index, symmetric)
    mined = distances.prepared(mining_metric, embeddings, candidates)
    return Compared(*prepared, runs, index, symmetric, *mined)


def _checked(references: References, embeddings: Float[Array, "batch dim"]) -> References:
    """The references with arrays of jax, of as many columns as the embeddings."""
    rows = arguments.rows("references", references.embeddings)
    labels = arguments.class_numbers("reference_labels", references.labels, len(rows))
    mask = arguments.mask("references.mask", references.mask, len(rows))
    arguments.check_same_dim(embeddings=embeddings, references=rows)
    if not len(rows):
        raise errors.InputError("references have no rows: pass at least one.")
    own = None if references.own is None else jnp.asarray(references.own)
    return References(rows, labels, mask, references.shared, own)


def _everywhere(
    among: References, axis_name: str | None
) -> tuple[
    Float[Array, "candidates dim"],
    Int[Array, "candidates"],
    Bool[Array, "candidates"] | None,
]:
    """Rows, labels and mask of all devices."""
    arrays = (among.embeddings, among.labels, among.mask)
    return arrays if among.shared else collectives.gather(arrays, axis_name)
