"""The triplet loss: a miner, lifted over a batch, and a penalty on what it mined."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from triplet_jax import collectives, distances, errors, masks, mining


def hinge(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`max(0, d_ap - d_an + margin)`. Its gradient at the kink is 0."""
    return jax.nn.relu(d_ap - d_an + margin)


def soft_margin(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`log(1 + exp(d_ap - d_an))`, finite for any distance; the margin is not used.

    Hermans et al. 2017, section 3. `log 2 = 0.693` is the value of a collapsed embedding.
    """
    del margin
    return jax.nn.softplus(d_ap - d_an)


PENALTIES: dict[str, Callable] = {"hinge": hinge, "soft_margin": soft_margin}
AVERAGES = ("active", "valid")


def triplet_loss(
    embeddings: Float[Array, "batch dim"],
    labels: Int[Array | np.ndarray, "batch"],
    *,
    miner: str | Callable[..., mining.Triplets] = "semi_hard",
    metric: str = "euclidean",
    margin: Float[Array, ""] | float = 0.2,
    penalty: str | Callable = "hinge",
    average: str = "active",
    references: Float[Array, "references dim"] | None = None,
    reference_labels: Int[Array | np.ndarray, "references"] | None = None,
    key: PRNGKeyArray | None = None,
    tile_size: int | None = None,
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean penalty of the triplets that a miner picks.

        loss = sum(weight * penalty(d_ap, d_an, margin)) / sum(weight)

    Both sums run over the triplets of every anchor on every device, so that the loss is
    one mean over the global batch and never a mean of means. The result does not depend
    on the order of the batch, on `tile_size`, or on the number of devices.

    Labels may be any integers up to 2^31 - 1, in any order and any imbalance.

    Args:
      embeddings: this device's rows; every row is an anchor.
      labels: their classes.
      miner: a name in `mining.MINERS`, or a function with a miner's signature.
      metric: a name in `distances.METRICS`.
      margin: in the units of the metric; may be traced.
      penalty: a name in `PENALTIES`, or a function `(d_ap, d_an, margin) -> value`.
      average: the denominator: "active", the triplets with a penalty above zero, or
        "valid", all that were mined.
      references: candidates other than the batch. The batch's own rows are then no
        candidates; without references they are, and no row is its own positive.
      reference_labels: their classes.
      key: for miners that draw at random. The same on every device.
      tile_size: anchors at a time. Memory is then `tile_size * candidates` instead of
        `batch * candidates`, for one more evaluation of the distances.
      axis_name: the name of the device axis inside `pmap`; candidates are then the rows of
        all devices.

    Returns:
      The loss, 0 where there is no triplet, and a dict of float scalars over the global
      batch: `num_valid` and `num_active` triplets (exact up to 2^24), `active_fraction`,
      `mean_d_ap` and `mean_d_an` over the valid ones, and `num_positive_pairs` and
      `num_negative_pairs`, the anchor-candidate pairs that the batch offers.

    Raises:
      InputError: a name is not known, labels are not integers below 2^31, references come
        without labels, a random miner without a key, or a tile size below 1.
    """
    mine = _lookup("miner", miner, mining.MINERS)
    penalize = _lookup("penalty", penalty, PENALTIES)
    errors.check_known("average", average, AVERAGES)
    if (references is None) != (reference_labels is None):
        raise errors.InputError("references and reference_labels are given together or not at all.")
    if tile_size is not None and tile_size < 1:
        raise errors.InputError(f"tile_size={tile_size} must be at least 1, or None for one tile.")
    takes_key = "key" in inspect.signature(mine).parameters
    if takes_key and key is None:
        raise errors.InputError("key=None, but this miner draws at random: pass a jax.random.key.")

    labels = _as_labels("labels", labels)
    rows = embeddings.shape[0]
    index = collectives.first_row(rows, axis_name) + jnp.arange(rows)
    if references is None:
        candidates, runs, self_position = _sort(embeddings, labels, labels, index, axis_name)
    else:
        reference_labels = _as_labels("reference_labels", reference_labels)
        candidates, runs, self_position = _sort(
            references, reference_labels, labels, None, axis_name
        )

    def sums_of_anchor(width, embedding, start, stop, self_position, index):
        row = distances.pairwise(embedding[None], candidates, metric)[0]
        to_positives, is_positive, is_negative = masks.split_row(
            row, start, stop, self_position, width
        )
        draw = {"key": jax.random.fold_in(key, index)} if takes_key else {}
        mined = mine(to_positives, is_positive, row, is_negative, **draw)
        return _sum_triplets(mined, penalize, margin, is_positive, is_negative)

    def sums_of_batch(width):
        anchors = (embeddings, runs.start, runs.stop, self_position, index)
        sums = _over_anchors(functools.partial(sums_of_anchor, width), anchors, tile_size)
        return jax.tree.map(jnp.sum, sums)

    longest = jnp.max(runs.stop - runs.start)
    sums = masks.switch_width(longest, candidates.shape[0], sums_of_batch)
    return _mean(collectives.total(sums, axis_name), average)


def _sort(rows, row_labels, labels, index, axis_name):
    """All devices' candidates sorted by label, and where each anchor's positives and itself are.

    `index` are the anchors' places among the candidates, None where they are not among them.
    """
    rows = collectives.gather(rows, axis_name)
    row_labels = collectives.gather(row_labels, axis_name)
    order = jnp.argsort(row_labels)
    self_position = jnp.full(labels.shape, -1) if index is None else jnp.argsort(order)[index]
    return rows[order], masks.label_runs(labels, row_labels[order]), self_position


def _over_anchors(of_anchor, anchors, tile_size):
    """`of_anchor` of all anchors at once, or of one tile of them after the other."""
    if tile_size is None:
        return jax.vmap(of_anchor)(*anchors)
    # Without the checkpoint every tile's distances would be kept for the gradient.
    of_tile = jax.checkpoint(lambda anchor: of_anchor(*anchor))
    return jax.lax.map(of_tile, anchors, batch_size=min(tile_size, len(anchors[0])))


class _Sums(NamedTuple):
    """What is added up over anchors, tiles and devices."""

    penalty: Float[Array, "*anchors"]
    valid_weight: Float[Array, "*anchors"]
    active_weight: Float[Array, "*anchors"]
    valid: Float[Array, "*anchors"]
    active: Float[Array, "*anchors"]
    d_ap: Float[Array, "*anchors"]
    d_an: Float[Array, "*anchors"]
    positives: Float[Array, "*anchors"]
    negatives: Float[Array, "*anchors"]


def _sum_triplets(mined, penalize, margin, is_positive, is_negative) -> _Sums:
    d_ap, d_an, weight = jnp.broadcast_arrays(*mined)
    weight = jax.lax.stop_gradient(weight.astype(d_ap.dtype))
    valid = weight > 0
    value = jnp.where(valid, penalize(d_ap, d_an, margin), 0.0)
    active = value > 0

    def total(x, where):
        return jnp.sum(x, where=where, dtype=jnp.float32)

    return _Sums(
        penalty=total(weight * value, valid),
        valid_weight=total(weight, valid),
        active_weight=total(weight, active),
        valid=total(1.0 * valid, valid),
        active=total(1.0 * active, active),
        d_ap=total(d_ap, valid),
        d_an=total(d_an, valid),
        positives=total(1.0 * is_positive, is_positive),
        negatives=total(1.0 * is_negative, is_negative),
    )


def _mean(sums: _Sums, average: str):
    denominator = sums.active_weight if average == "active" else sums.valid_weight
    loss = sums.penalty / jnp.where(denominator > 0, denominator, 1.0)
    valid = jnp.maximum(sums.valid, 1.0)
    stats = {
        "num_valid": sums.valid,
        "num_active": sums.active,
        "active_fraction": sums.active / valid,
        "mean_d_ap": sums.d_ap / valid,
        "mean_d_an": sums.d_an / valid,
        "num_positive_pairs": sums.positives,
        "num_negative_pairs": sums.negatives,
    }
    return loss, jax.lax.stop_gradient(stats)


def _lookup(field, name_or_function, table):
    if callable(name_or_function):
        return name_or_function
    errors.check_known(field, name_or_function, table)
    return table[name_or_function]


def _as_labels(field, labels):
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise errors.InputError(f"{field} have dtype {labels.dtype}; they must be integers.")
    if isinstance(labels, np.ndarray) and labels.size and labels.max() > np.iinfo(np.int32).max:
        raise errors.InputError(
            f"{field} go up to {labels.max()}, more than 2^31 - 1: number the classes from 0."
        )
    return jnp.asarray(labels, jnp.int32)
