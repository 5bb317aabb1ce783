"""What mining does in a batch, as arrays: distances, hardness, ranks, and the embedding's shape.

A loss is an average and hides what it averages over. These arrays show it. A run takes them every
so many steps beside the step's scalars, and notebooks read them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from triplet_jax import arguments, distances, errors, losses, mining, penalties
from triplet_jax.devices import collectives
from triplet_jax.engine import batches, miner_views, positive_masks, rules

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
"""The percentiles that `of_batch` gives of lengths and of distances."""
HARDNESS_EDGES = np.linspace(-1, 1, 41, dtype=np.float32)
"""The ends of the intervals of `hardness`."""
RANK_EDGES = np.linspace(0, 1, 21, dtype=np.float32)
"""The ends of the intervals of `negative_rank`."""

# The most triplets that are looked at. Of a larger batch, only some anchors are.
_MOST_TRIPLETS = 2**21


def of_batch(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    miner: str | Callable,
    margin: Float[Array, ""] | float,
    most_positives: int,
    metric: str | Callable[..., distances.Metric] = "euclidean",
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    key: PRNGKeyArray | None = None,
    per_anchor: bool = False,
    axis_name: str | None = None,
    **params,
) -> dict[str, Array]:
    """Describes one batch, and the triplets that a miner takes from it.

    Args:
      embeddings: this device's rows. The batch of all devices is described.
      labels: their classes.
      miner: as in `losses.triplet_loss`.
      margin: of the census, in the units of the metric.
      most_positives: at least 1; an anchor's positives beyond it are left out. K - 1 in a batch
        with K examples a class.
      metric: as in `losses.triplet_loss`.
      mask: which rows of the batch count; None for all.
      key: the key that the loss was given, so that a random miner draws the same triplets.
      per_anchor: whether to add `anchor_label`, `anchor_triplets`, `anchor_d_ap` and `anchor_d_an`
        (means over an anchor's triplets). Statistics of each class follow from them.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.
      **params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.

    Returns:
      A dict of arrays. Shares of nothing are 0.

      * `norms`, `distances`, `to_positives`, `to_negatives`: the `PERCENTILES` of the embeddings'
        lengths, and of the distances of all pairs, of pairs of one class and of two classes.
      * `d_ap`, `d_an`: the percentiles of the mined triplets' distances.
      * `census`: the shares of easy, semi-hard and hard triplets among all that the batch
        offers: `d_an - d_ap` above the margin, above 0, and not above 0.
      * `hardness`: the shares of mined triplets by `(d_an - d_ap) / mean distance to negatives`
        between `HARDNESS_EDGES`. Values outside count in the outermost interval.
      * `negative_rank`: the shares of mined negatives by their rank among the anchor's negatives
        between `RANK_EDGES`; 0 is the nearest and 1 the farthest.
      * `spectrum`: the shares of the embeddings' variance by principal axis, falling.
      * `effective_rank`: the exponential of the spectrum's entropy (Roy and Vetterli 2007, "The
        effective rank", https://ieeexplore.ieee.org/document/7098875).

      In a large batch, all but `norms`, `spectrum` and `effective_rank` are those of some
      evenly spaced anchors, so that no more than 2^21 triplets are looked at.

    Raises:
      InputError: an array is refused as by `losses.triplet_loss`, a name is not known,
        `most_positives` is below 1, or the parameters are not those of the metric.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import telemetry
      >>> x = jnp.array([[0.0], [1.0], [1.5], [4.0]])
      >>> settings = {"miner": "batch_all", "margin": 0.2, "most_positives": 1}
      >>> found = telemetry.of_batch(x, [0, 0, 1, 1], **settings)
      >>> print(found["census"])
      [0.625 0.    0.375]
    """
    embeddings, labels, shown, order = _sorted_global_batch(embeddings, labels, mask, axis_name)
    if most_positives < 1:
        raise errors.InputError(f"most_positives={most_positives} must be at least 1.")
    n = len(labels)
    anchors = max(1, min(n, _MOST_TRIPLETS // (n * most_positives)))
    chosen = (jnp.arange(anchors) * n) // anchors

    made = distances.make(metric, **params)
    prepared, _ = distances.prepared(made, embeddings, embeddings)
    rule = rules.TripletRule(made, losses.miner_of(miner), penalties.hinge, key)
    runs = positive_masks.label_runs(labels[chosen], labels, chosen)
    runs = runs.hiding(shown[chosen], jnp.sum(shown))
    view, mined = miner_views.mine_at_once(
        rule,
        batches.Anchors(prepared[chosen], runs, order[chosen]),
        batches.Candidates(prepared),
        most_positives,
    )
    mined = mining.Triplets(*jnp.broadcast_arrays(*mined))
    is_other = (jnp.arange(n) != chosen[:, None]) & shown & shown[chosen][:, None]
    found = {
        "distances": _percentiles(view.to_negatives, is_other),
        **_of_embeddings(embeddings, shown),
        **_of_view(view, margin),
        **_of_triplets(mined, view),
    }
    return found | (_of_each_anchor(mined, labels[chosen]) if per_anchor else {})


def _sorted_global_batch(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    mask: Bool[Array | np.ndarray, "batch"] | None,
    axis_name: str | None,
) -> tuple[
    Float[Array, "candidates dim"],
    Int[Array, "candidates"],
    Bool[Array, "candidates"],
    Int[Array, "candidates"],
]:
    """Rows, labels and mask of all devices, sorted by label, and each row's place in the batch."""
    embeddings = arguments.rows("embeddings", embeddings)
    labels = arguments.class_numbers("labels", labels, len(embeddings))
    mask = arguments.mask("mask", mask, len(embeddings))
    embeddings, labels, mask = collectives.whole((embeddings, labels, mask))
    embeddings = collectives.gather(jax.lax.stop_gradient(embeddings), axis_name)
    labels = collectives.gather(labels, axis_name)
    n = len(labels)
    shown = jnp.ones(n, bool) if mask is None else collectives.gather(mask, axis_name)
    if mask is not None:
        embeddings = batches.without_hidden(embeddings, shown, embeddings, shown)
    order, labels = positive_masks.by_label(labels, shown)
    return embeddings[order], labels, shown[order], order


def _of_embeddings(
    embeddings: Float[Array, "candidates dim"], shown: Bool[Array, "candidates"]
) -> dict[str, Float[Array, "..."]]:
    spectrum = _spectrum(embeddings, shown)
    return {
        "norms": _percentiles(jnp.linalg.norm(embeddings, axis=1), shown),
        "spectrum": spectrum,
        "effective_rank": jnp.exp(-jnp.sum(jax.scipy.special.xlogy(spectrum, spectrum))),
    }


def _of_view(
    view: miner_views.View, margin: Float[Array, ""] | float
) -> dict[str, Float[Array, "..."]]:
    """What the batch offers a miner."""
    gap = view.to_negatives[:, None, :] - view.to_positives[:, :, None]
    offered = view.is_positive[:, :, None] & view.is_negative[:, None, :]
    census = (gap > margin, (gap > 0) & (gap <= margin), gap <= 0)
    return {
        "to_positives": _percentiles(view.to_positives, view.is_positive),
        "to_negatives": _percentiles(view.to_negatives, view.is_negative),
        "census": jnp.stack([_mean(1.0 * share, offered) for share in census]),
    }


def _of_triplets(mined: mining.Triplets, view: miner_views.View) -> dict[str, Float[Array, "..."]]:
    """What the miner took."""
    d_ap, d_an, weight = mined
    to_negatives = _mean(view.to_negatives, view.is_negative)
    to_negatives = jnp.where(to_negatives > 0, to_negatives, 1.0)
    return {
        "d_ap": _percentiles(d_ap, weight > 0),
        "d_an": _percentiles(d_an, weight > 0),
        "hardness": _histogram((d_an - d_ap) / to_negatives, weight > 0, HARDNESS_EDGES),
        "negative_rank": _histogram(_ranks(d_an, view), weight > 0, RANK_EDGES),
    }


def _of_each_anchor(
    mined: mining.Triplets, labels: Int[Array, "anchors"]
) -> dict[str, Shaped[Array, "anchors"]]:
    d_ap, d_an, weight = mined
    of_anchor = tuple(range(1, weight.ndim))
    return {
        "anchor_label": labels,
        "anchor_triplets": jnp.sum(1.0 * (weight > 0), axis=of_anchor),
        "anchor_d_ap": _mean(d_ap, weight > 0, of_anchor),
        "anchor_d_an": _mean(d_an, weight > 0, of_anchor),
    }


def every(steps: int, measure: Callable[..., dict[str, Array]]) -> Callable[..., dict[str, Array]]:
    """`measure` at each `steps`-th step, and at the others zeros, which cost nothing.

    Args:
      steps: at least 1.
      measure: returns arrays by name, always of the same shapes.

    Returns:
      A function of the number of the step, followed by the arguments of `measure`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import telemetry
      >>> sums = telemetry.every(10, lambda x: {"sum": jnp.sum(x)})
      >>> [float(sums(step, jnp.ones(3))["sum"]) for step in (9, 10)]
      [0.0, 3.0]
    """

    def maybe(step, *args, **kwargs):
        def zeros():
            shapes = jax.eval_shape(lambda: measure(*args, **kwargs))
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        return jax.lax.cond(step % steps == 0, lambda: measure(*args, **kwargs), zeros)

    return maybe


def _mean(
    x: Float[Array, "..."], where: Bool[Array, "..."], axis: tuple[int, ...] | None = None
) -> Float[Array, "..."]:
    count = jnp.sum(where, axis=axis)
    return jnp.sum(jnp.where(where, x, 0.0), axis=axis) / jnp.maximum(count, 1)


def _percentiles(
    x: Float[Array, "*shape"], where: Bool[Array, "*shape"]
) -> Float[Array, " percentiles"]:
    """The `PERCENTILES` by the nearest rank; 0 if there are no values."""
    count = jnp.sum(where)
    # Integers round in one way everywhere. Two parts of them do not overflow.
    hundreds, rest = jnp.divmod(count - 1, 100)
    percent = jnp.asarray(PERCENTILES)
    nth = percent * hundreds + (percent * rest + 50) // 100 + 1
    row = x.reshape(-1).astype(jnp.float32)
    found, _ = jax.vmap(mining.at_rank, in_axes=(None, None, 0))(row, where.reshape(-1), nth)
    return found


def _histogram(
    x: Float[Array, "*shape"], where: Bool[Array, "*shape"], edges: Float[np.ndarray, " edges"]
) -> Float[Array, " intervals"]:
    """The share of each interval. Values outside count in the outermost interval."""
    inside = jnp.clip(jnp.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    counts = jnp.zeros(len(edges) - 1).at[inside].add(1.0 * where)
    return counts / jnp.maximum(jnp.sum(where), 1)


def _ranks(
    d_an: Float[Array, "anchors *triplets"], view: miner_views.View
) -> Float[Array, "anchors *triplets"]:
    """The rank of each negative among its anchor's, from 0 to 1."""
    negatives = jnp.where(view.is_negative, view.to_negatives, jnp.inf)
    flat = d_an.reshape(len(d_an), -1)
    if flat.shape[1] <= mining.MANY:
        nearer = jnp.sum(negatives[:, None] < flat[:, :, None], axis=2)
    else:
        negatives = jnp.sort(negatives, axis=1)
        nearer = jax.vmap(lambda row, d: jnp.searchsorted(row, d, side="left"))(negatives, flat)
    most = jnp.maximum(jnp.sum(view.is_negative, axis=1) - 1, 1)
    return (nearer / most[:, None]).reshape(d_an.shape)


def _spectrum(
    embeddings: Float[Array, "candidates dim"], shown: Bool[Array, "candidates"]
) -> Float[Array, "dim"]:
    centre = jnp.mean(embeddings, axis=0, where=shown[:, None])
    centred = jnp.where(shown[:, None], embeddings - centre, 0.0)
    covariance = distances.product(centred.T, centred)
    variance = jnp.maximum(jnp.linalg.eigvalsh(covariance)[::-1], 0.0)
    return variance / jnp.maximum(jnp.sum(variance), jnp.finfo(jnp.float32).tiny)
