"""A loss of one anchor, applied to a batch: in tiles of anchors, and over devices."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances, errors, losses
from triplet_jax.contrastive.registry import LOSSES, SUITED
from triplet_jax.devices import collectives
from triplet_jax.engine import anchor_sums, batches, gradient, rules
from triplet_jax.engine.terms import Terms
from triplet_jax.relations import Relation


def contrastive_loss(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels | Relation,
    *,
    loss: str | Callable[..., Terms] = "info_nce",
    metric: str | Callable[..., distances.Metric] = "cosine",
    metric_params: Mapping[str, Any] | None = None,
    references: Shaped[Array | np.ndarray, "references dim"] | losses.References | None = None,
    reference_labels: arguments.Labels | None = None,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    tile_size: int | None = None,
    precision: str = "float32",
    derivatives: str = "first",
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """A loss of every anchor's positives and negatives, over the global batch.

        loss = sum over terms of  sum(value) / sum(weight)

    The inner sums run over the anchors of all devices. A term without weight is 0. The result does
    not depend on the order of the batch, on `tile_size` or on the number of devices.

    Args:
      embeddings: this device's rows. Every row is an anchor. float16 and bfloat16 are widened to
        float32, and their gradient has the type of the embeddings.
      labels: their classes, a list or an array `[batch]` of integers up to 2^31 - 1; or a
        `relations.Relation`, where rows have several labels or pairs are given.
      loss: a name in `LOSSES`, or a function with the signature of those in it. Floats that
        `functools.partial` sets may be traced, and learned.
      metric: a name in `distances.METRICS`, or a function like those in it. Losses of similarities
        need "cosine", "dot" or `class_centres.to_centres`; those of angles, such as `arcface`, not
        "dot".
      metric_params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.
      references: the candidates in place of the batch's own rows: proxies, class weights, a queue
        or the other modality. An array `[references, dim]` of which each device has a part, or
        `losses.References`, which may also be shared by all devices, as proxies are, or masked.
      reference_labels: the classes of an array of references.
      mask: which rows of the batch count; None for all.
      tile_size: the most anchors at a time; None chooses. Memory is about `tile_size * candidates`
        numbers.
      precision: of the matrix products: "float32", "tf32" or "bfloat16", as in
        `losses.triplet_loss`.
      derivatives: "first" or "all", as in `losses.triplet_loss`.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The loss, which is 0 if no anchor counts, and a dict of float scalars over the global batch:
      `num_positive_pairs` and `num_negative_pairs`, `mean_d_ap` and `mean_d_an` over these pairs,
      and `num_valid`, the denominator of the first term.

    Raises:
      InputError: a name is not known, an array has the wrong shape or type, labels are not integers
        below 2^31, references come without labels, the tile size is below 1, the loss is one of
        similarities and the metric has none, or a lower precision does not suit the metric. With
        `derivatives="first"`, a second derivative is refused too.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive, losses
      >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> proxies = losses.References(jnp.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1], shared=True)
      >>> loss, stats = contrastive.contrastive_loss(x, [0, 1], loss="info_nce", references=proxies)
      >>> print(f"{loss:.1e} of {stats['num_positive_pairs']:.0f} positive pairs")
      4.5e-05 of 2 positive pairs
    """
    errors.check_known("derivatives", derivatives, gradient.DERIVATIVES)
    measure, knobs = losses.numbers_of(losses.lookup("loss", loss, LOSSES))
    losses.check_metric_suits(measure, metric, SUITED)
    made = distances.in_precision(precision, metric, **(metric_params or {}))
    batch = batches.prepare(
        made,
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        mask=mask,
        axis_name=axis_name,
    )
    shares = jnp.ones(_number_of_terms(measure, knobs), jnp.float32)

    def sums_of(shares):
        rule = rules.AnchorRule(made, measure, shares)
        return anchor_sums.over_anchors(rule, batch, knobs, tile_size, derivatives)

    if len(shares) > 1:
        # The denominators are found by a sweep of their own. All terms then have one gradient,
        # which saves more than it costs to measure the distances again. If all anchors are one
        # tile, the compiler measures them only once.
        shares = _inverse(collectives.total(sums_of(shares).weight, axis_name))
    sums, pairs = collectives.total((sums_of(shares), batch.pairs), axis_name)
    value = sums.value * _inverse(sums.weight[0]) if len(shares) == 1 else sums.value
    stats = {
        "num_valid": sums.weight[0],
        "mean_d_ap": sums.d_ap / jnp.maximum(pairs["num_positive_pairs"], 1.0),
        "mean_d_an": sums.d_an / jnp.maximum(pairs["num_negative_pairs"], 1.0),
        **pairs,
    }
    return value, jax.lax.stop_gradient(stats)


def _number_of_terms(measure: Callable[..., Terms], knobs: dict[str, Array]) -> int:
    row, mask = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((1,), bool)
    return jax.eval_shape(measure, row, mask, row, mask, **knobs).value.shape[0]


def _inverse(weight: Float[Array, "..."]) -> Float[Array, "..."]:
    """`1 / weight`, or 1 where there is no weight."""
    return 1.0 / jnp.where(weight > 0, weight, 1.0)
