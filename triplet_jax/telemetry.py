"""What mining does in a batch, as arrays: distances, hardness, ranks, and the embedding's shape.

Losses are averages and hide what they average over. These arrays show it: they are taken
every so many steps, beside the step's scalars, and read back for a notebook.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from triplet_jax import arguments, distances, losses, mining, penalties
from triplet_jax.devices import collectives
from triplet_jax.engine import batches, label_runs, rules, views

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
HARDNESS_EDGES = np.linspace(-1, 1, 41, dtype=np.float32)
RANK_EDGES = np.linspace(0, 1, 21, dtype=np.float32)

# Triplets that are looked at, at most; of a larger batch only some of the anchors are.
_MOST_TRIPLETS = 2**21


def of_batch(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    miner: str | Callable,
    margin: Float[Array, ""] | float,
    most_positives: int,
    metric: str | Callable[..., distances.Metric] = "euclidean",
    metric_params: Mapping[str, Any] | None = None,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    key: PRNGKeyArray | None = None,
    per_anchor: bool = False,
    axis_name: str | None = None,
) -> dict[str, Array]:
    """Describes one batch and the triplets that a miner takes from it.

    Args:
      embeddings: this device's rows; the batch of all devices is described.
      labels: their classes.
      miner: as in `losses.triplet_loss`.
      margin: of the census, in the units of the metric.
      most_positives: places for an anchor's positives; K - 1 in a batch of K a class.
      metric: as in `losses.triplet_loss`.
      metric_params: likewise.
      mask: likewise.
      key: the one that the loss was given, so that the same triplets are drawn.
      per_anchor: also `anchor_label`, `anchor_triplets`, `anchor_d_ap` and `anchor_d_an` (means
        over the anchor's triplets), from which numbers of each class follow.
      axis_name: as in `losses.triplet_loss`.

    Returns:
      * `norms`, `distances`, `to_positives`, `to_negatives`: the `PERCENTILES` of the embeddings'
        lengths, of all pairs, of pairs of one class and of two.
      * `d_ap`, `d_an`: the percentiles of the mined triplets.
      * `census`: the shares of easy, semi-hard and hard triplets among all that the batch
        offers: `d_an - d_ap` above the margin, above 0, and not above 0.
      * `hardness`: the shares of mined triplets by `(d_an - d_ap) / mean distance to negatives`,
        between `HARDNESS_EDGES`; what lies outside is in the outermost.
      * `negative_rank`: the shares of mined negatives by their place among the anchor's
        negatives, 0 the nearest and 1 the farthest, between `RANK_EDGES`.
      * `spectrum`: the shares of the embeddings' variance by principal axis, falling, and
        `effective_rank`, the exponential of its entropy (Roy and Vetterli 2007).

      Shares of nothing are 0. In a large batch, all but `norms`, `spectrum` and `effective_rank`
      are taken over anchors at even spaces, so that no more than 2^21 triplets are looked at.
    """
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    mask = arguments.mask("mask", mask, len(embeddings))
    embeddings, labels, mask = collectives.whole((embeddings, labels, mask))
    embeddings = collectives.gather(jax.lax.stop_gradient(embeddings), axis_name)
    labels = collectives.gather(labels, axis_name)
    n = len(labels)
    shown = jnp.ones(n, bool) if mask is None else collectives.gather(mask, axis_name)
    order, labels = label_runs.by_label(labels, shown)
    embeddings, shown = embeddings[order], shown[order]
    count = jnp.sum(shown)
    anchors = max(1, min(n, _MOST_TRIPLETS // (n * most_positives)))
    chosen = (jnp.arange(anchors) * n) // anchors

    made = distances.make(metric, **(metric_params or {}))
    prepared, _ = distances.prepared(made, embeddings, embeddings)
    rule = rules.TripletRule(made, losses.miner_of(miner), penalties.hinge, key)
    runs = label_runs.label_runs(labels[chosen], labels, chosen).hiding(shown[chosen], count)
    seen, mined = views.mine_at_once(
        rule,
        batches.Anchors(prepared[chosen], runs, order[chosen]),
        batches.Candidates(prepared),
        most_positives,
    )

    is_other = (jnp.arange(n) != chosen[:, None]) & shown & shown[chosen][:, None]
    to_negatives = _mean(seen.to_negatives, seen.is_negative)
    to_negatives = jnp.where(to_negatives > 0, to_negatives, 1.0)
    d_ap, d_an, weight = jnp.broadcast_arrays(*mined)
    gap = seen.to_negatives[:, None, :] - seen.to_positives[:, :, None]
    offered = seen.is_positive[:, :, None] & seen.is_negative[:, None, :]
    spectrum = _spectrum(embeddings, shown)
    found = {
        "norms": _percentiles(jnp.linalg.norm(embeddings, axis=1), shown),
        "distances": _percentiles(seen.to_negatives, is_other),
        "to_positives": _percentiles(seen.to_positives, seen.is_positive),
        "to_negatives": _percentiles(seen.to_negatives, seen.is_negative),
        "d_ap": _percentiles(d_ap, weight > 0),
        "d_an": _percentiles(d_an, weight > 0),
        "census": jnp.stack(
            [
                _mean(1.0 * (gap > margin), offered),
                _mean(1.0 * ((gap > 0) & (gap <= margin)), offered),
                _mean(1.0 * (gap <= 0), offered),
            ]
        ),
        "hardness": _histogram((d_an - d_ap) / to_negatives, weight > 0, HARDNESS_EDGES),
        "negative_rank": _histogram(_ranks(d_an, seen), weight > 0, RANK_EDGES),
        "spectrum": spectrum,
        "effective_rank": jnp.exp(-jnp.sum(jax.scipy.special.xlogy(spectrum, spectrum))),
    }
    if per_anchor:
        of_anchor = tuple(range(1, weight.ndim))
        found |= {
            "anchor_label": labels[chosen],
            "anchor_triplets": jnp.sum(1.0 * (weight > 0), axis=of_anchor),
            "anchor_d_ap": _mean(d_ap, weight > 0, of_anchor),
            "anchor_d_an": _mean(d_an, weight > 0, of_anchor),
        }
    return found


def every(steps: int, measure: Callable[..., dict[str, Array]]) -> Callable[..., dict[str, Array]]:
    """`measure` at each `steps`-th step, and zeros, which cost nothing, at the others.

    The result takes the number of the step first.
    """

    def maybe(step, *args, **kwargs):
        def zeros():
            shapes = jax.eval_shape(lambda: measure(*args, **kwargs))
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(step % steps == 0, lambda: measure(*args, **kwargs), zeros)

    return maybe


def _mean(x, where, axis=None):
    count = jnp.sum(where, axis=axis)
    return jnp.sum(jnp.where(where, x, 0.0), axis=axis) / jnp.maximum(count, 1)


def _percentiles(x, where):
    """By the nearest rank, 0 of nothing."""
    count = jnp.sum(where)
    # Integers, in parts that cannot overflow: halves round the same way everywhere.
    hundreds, rest = jnp.divmod(count - 1, 100)
    percent = jnp.asarray(PERCENTILES)
    nth = percent * hundreds + (percent * rest + 50) // 100 + 1
    row = x.reshape(-1).astype(jnp.float32)
    found, _ = jax.vmap(mining.at_rank, in_axes=(None, None, 0))(row, where.reshape(-1), nth)
    return found


def _histogram(x, where, edges):
    """The share in each interval; what lies outside counts as in the outermost."""
    inside = jnp.clip(jnp.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    counts = jnp.zeros(len(edges) - 1).at[inside].add(1.0 * where)
    return counts / jnp.maximum(jnp.sum(where), 1)


def _ranks(d_an, seen):
    """Each negative's place among its anchor's, from 0 to 1."""
    negatives = jnp.where(seen.is_negative, seen.to_negatives, jnp.inf)
    flat = d_an.reshape(len(d_an), -1)
    if flat.shape[1] <= mining.MANY:
        nearer = jnp.sum(negatives[:, None] < flat[:, :, None], axis=2)
    else:
        negatives = jnp.sort(negatives, axis=1)
        nearer = jax.vmap(lambda row, d: jnp.searchsorted(row, d, side="left"))(negatives, flat)
    most = jnp.maximum(jnp.sum(seen.is_negative, axis=1) - 1, 1)
    return (nearer / most[:, None]).reshape(d_an.shape)


def _spectrum(embeddings, shown):
    centre = jnp.mean(embeddings, axis=0, where=shown[:, None])
    centred = jnp.where(shown[:, None], embeddings - centre, 0.0)
    covariance = distances.product(centred.T, centred)
    variance = jnp.maximum(jnp.linalg.eigvalsh(covariance)[::-1], 0.0)
    return variance / jnp.maximum(jnp.sum(variance), jnp.finfo(jnp.float32).tiny)
