"""The triplet loss: a miner, lifted over a batch, and a penalty on the triplets that it takes."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from triplet_jax import arguments, distances, errors, mining, penalties
from triplet_jax.devices import collectives
from triplet_jax.engine import anchor_sums, batches, gradient, rules, sums
from triplet_jax.engine.references import References as References
from triplet_jax.relations import Relation

PENALTIES = penalties.PENALTIES
"""The penalties that `triplet_loss` takes by name."""
AVERAGES = ("active", "valid")
"""The denominators that `average` names."""


def triplet_loss(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels | Relation,
    *,
    miner: str | Callable[..., mining.Triplets] = "semi_hard",
    metric: str | Callable[..., distances.Metric] = "euclidean",
    metric_params: Mapping[str, Any] | None = None,
    mining_metric: str | Callable[..., distances.Metric] | None = None,
    mining_metric_params: Mapping[str, Any] | None = None,
    margin: Float[Array, ""] | float = 0.2,
    penalty: str | Callable = "hinge",
    average: str = "active",
    references: Shaped[Array | np.ndarray, "references dim"] | References | None = None,
    reference_labels: arguments.Labels | None = None,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    key: PRNGKeyArray | None = None,
    tile_size: int | None = None,
    precision: str = "float32",
    derivatives: str = "first",
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean penalty of the triplets that a miner picks.

        loss = sum(weight * penalty(d_ap, d_an, margin)) / sum(weight)

    The sums run over the triplets of every anchor on every device; that in the denominator, with
    `average="active"`, only over those whose penalty is not 0. The loss is one mean over the global
    batch, and not a mean of the devices' means. It does not depend on `tile_size` or on the
    number of devices. Except for miners that draw at random, it does not depend on the order of the
    batch either.

    Distances of picked triplets are measured again as differences, so that near duplicates lose no
    digits. If a miner picks a distance that it was not given, the loss is NaN. Which triplets are
    picked, and their weights, are constants to every derivative.

    Args:
      embeddings: this device's rows. Every row is an anchor. Rows are not normalised, which PyTorch
        Metric Learning does by default. float16 and bfloat16 are widened to float32, and their
        gradient has the type of the embeddings.
      labels: their classes, a list or an array `[batch]`: integers up to 2^31 - 1, in any order and
        any imbalance; or a `relations.Relation`, where rows have several labels or pairs are given.
      miner: a name in `mining.MINERS`, or a function with a miner's signature.
      metric: a name in `distances.METRICS`, or a function like those in it.
      metric_params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.
      mining_metric: the metric of the distances that the miner sees; None for `metric`. The mean
        distances in the stats are by `metric`.
      mining_metric_params: parameters of the metric of mining.
      margin: in the units of the metric; may be traced.
      penalty: a name in `PENALTIES`, or a function `(d_ap, d_an, margin) -> value`. If it names
        `d_pn` as a keyword, it is given the distance from positive to negative. Floats that
        `functools.partial` sets may be traced, and learned.
      average: the denominator: "active" counts the triplets whose penalty is not zero, "valid" all
        that were mined.
      references: the candidates in place of the batch's own rows: an array `[references, dim]` of
        which each device has a part, or `References`, which may also be shared by all devices or
        masked. None compares the batch with itself, where no row is its own positive.
      reference_labels: the classes of an array of references.
      mask: which rows of the batch count; None for all. The others are neither anchors nor
        candidates, so that a batch of a fixed shape may hold fewer examples.
      key: for miners that draw at random; the same key on every device.
      tile_size: the most anchors at a time; None chooses a size that suits the device. Memory is
        about `tile_size * candidates` numbers. A miner of all pairs adds the triplets of as many
        anchors as are penalised together, of one at least.
      precision: of the matrix products that distances come from: "float32", "tf32" or "bfloat16",
        for metrics that have one. Sums are in float32, and distances of picked triplets and of near
        duplicates are measured again in it. Other triplets may be picked; docs/losses.md says how
        many.
      derivatives: "first" finds the first derivatives in the same sweep as the value. "all" allows
        derivatives of any order, such as a Hessian or a penalty on the gradient, and takes more
        time and memory.
      axis_name: the name of the device axis inside `pmap` or `shard_map`. The candidates are then
        the rows of all devices.

    Returns:
      The loss, which is 0 if there is no triplet, and a dict of float scalars over the global
      batch: `num_valid` and `num_active` triplets (exact up to 2^24), `active_fraction`,
      `mean_d_ap` and `mean_d_an` over the valid triplets, and `num_positive_pairs` and
      `num_negative_pairs`, the pairs of an anchor and a candidate that the batch offers.

    Raises:
      InputError: a name is not known, an array has the wrong shape or type, labels are not integers
        below 2^31, references come without labels, a random miner has no key, the tile size is
        below 1, or the miner, the penalty or the precision is not defined for the metric. With
        `derivatives="first"`, a second derivative is refused too.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from triplet_jax import losses
      >>> x, labels = jnp.array([[0.0], [1.0], [1.5], [4.0]]), [0, 0, 1, 1]
      >>> def loss(x):
      ...     return losses.triplet_loss(x, labels, miner="batch_hard", margin=0.5)
      >>> (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(x)
      >>> print(f"{value:.2f}, the mean of {stats['num_active']:.0f} active triplets")
      1.75, the mean of 2 active triplets
      >>> print(gradient.ravel())
      [-0.5  1.5 -1.5  0.5]
    """
    mine = miner_of(miner)
    penalize = _penalty_of(penalty)
    errors.check_known("average", average, AVERAGES)
    errors.check_known("derivatives", derivatives, gradient.DERIVATIVES)
    if mining_metric is None:
        check_metric_suits(mine, metric, _SUITED)
    else:
        check_metric_suits(mine, mining_metric, _SUITED, field="mining_metric")
    check_metric_suits(penalize, metric, _SUITED)
    takes_key = "key" in inspect.signature(mine).parameters
    if takes_key and key is None:
        raise errors.InputError("key=None, but this miner draws at random: pass a jax.random.key.")

    made = distances.in_precision(precision, metric, **(metric_params or {}))
    mined_by = _mining_metric(precision, mining_metric, mining_metric_params)
    penalize, knobs = numbers_of(penalize)
    batch = batches.prepare(
        made,
        embeddings,
        labels,
        references=references,
        reference_labels=reference_labels,
        mask=mask,
        axis_name=axis_name,
        mining_metric=mined_by,
    )
    total = anchor_sums.over_anchors(
        rules.TripletRule(made, mine, penalize, key, mined_by),
        batch,
        knobs | {"margin": jnp.asarray(margin, jnp.float32)},
        tile_size,
        derivatives,
    )
    total, pairs = collectives.total((total, batch.pairs), axis_name)
    return _mean(total, pairs, average)


def of_triplets(
    anchors: Shaped[Array | np.ndarray, "triplets dim"],
    positives: Shaped[Array | np.ndarray, "triplets dim"],
    negatives: Shaped[Array | np.ndarray, "triplets dim"],
    *,
    metric: str | Callable[..., distances.Metric] = "euclidean",
    margin: Float[Array, ""] | float = 0.2,
    penalty: str | Callable = "hinge",
    average: str = "active",
    mask: Bool[Array | np.ndarray, "triplets"] | None = None,
    axis_name: str | None = None,
    **params,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean penalty of given triplets, row by row. Nothing is mined.

        loss = sum(penalty(d(a_i, p_i), d(a_i, n_i), margin)) / number of active triplets

    With `average="valid"` it is divided by the number of all triplets that the mask shows. Use it
    for files of triplets, for triplets that people labelled, and for miners outside of this
    library. Distances are measured as differences, so that near duplicates lose no digits. The
    loss is ordinary jax code and has derivatives of any order, in forward and in reverse mode.

    Args:
      anchors: row i belongs to row i of the other two arrays. Rows are not normalised.
      positives: rows of the anchors' classes.
      negatives: rows of other classes.
      metric: a name in `distances.METRICS`, or a function like those in it.
      margin: in the units of the metric; may be traced.
      penalty: as in `triplet_loss`.
      average: the denominator: "active" counts the triplets whose penalty is not zero, "valid" all
        that the mask shows.
      mask: which triplets count; None for all. The others may hold anything, NaN included, so that
        a batch of a fixed shape may hold fewer triplets.
      axis_name: the name of the device axis inside `pmap` or `shard_map`. Each device then has a
        part of the triplets, and the mean is over the triplets of all devices.
      **params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.

    Returns:
      The loss, which is 0 if no triplet counts, and a dict of float scalars over all devices:
      `num_valid`, `num_active`, `active_fraction`, `mean_d_ap` and `mean_d_an`.

    Raises:
      InputError: the arrays differ in shape or hold no real numbers, the mask has another shape, a
        name is not known, the parameters are not those of the metric, or the metric does not suit
        the penalty.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import losses
      >>> a, p, n = jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]]), jnp.array([[1.5, 0.0]])
      >>> loss, stats = losses.of_triplets(a, p, n, margin=1.0)
      >>> print(f"{loss:.2f} of {stats['num_valid']:.0f} triplet")
      0.50 of 1 triplet
    """
    penalize = _penalty_of(penalty)
    errors.check_known("average", average, AVERAGES)
    check_metric_suits(penalize, metric, _SUITED)
    made = distances.make(metric, **params)
    rows = _rows_of_triplets(anchors=anchors, positives=positives, negatives=negatives)
    mask = arguments.mask("mask", mask, len(rows[0]))
    if mask is not None:
        # Hidden rows are replaced before anything is measured, or their gradient could be NaN.
        rows = [jnp.where(mask[:, None], x, 0.0) for x in rows]
    a, p, n = map(made.prepare, rows)

    def measure(x, y):
        return made.finish(made.between(x, y))[:, None]

    shown = jnp.ones((len(a), 1), bool) if mask is None else mask[:, None]
    given = mining.Triplets(measure(a, p), measure(a, n), shown)
    penalize, knobs = numbers_of(penalize)
    knobs |= {"margin": jnp.asarray(margin, jnp.float32)}
    total = sums.of_triplets(penalize, given, lambda: measure(p, n), knobs)
    return _mean(collectives.total(total, axis_name), {}, average)


def _rows_of_triplets(
    **arrays: Shaped[Array | np.ndarray, "_ _"],
) -> list[Float[Array, "triplets dim"]]:
    """The three arrays in float32, if they have one shape."""
    found = [arguments.rows(name, x) for name, x in arrays.items()]
    if len({x.shape for x in found}) > 1:
        raise errors.InputError(
            "anchors, positives and negatives have the shapes {}, {} and {}: all three must have"
            " one shape [triplets, dim].".format(*(x.shape for x in found))
        )
    return found


def numbers_of(penalize: Callable) -> tuple[Callable, dict[str, Array]]:
    """A function without the floats that a `functools.partial` sets, and these floats by name.

    They are arguments of the engine, which finds their gradient.
    """
    if not isinstance(penalize, functools.partial):
        return penalize, {}
    knobs = {
        name: jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32))
        for name, value in penalize.keywords.items()
        if isinstance(value, float | np.ndarray | np.floating | jax.Array)
        and jnp.issubdtype(jnp.result_type(value), jnp.floating)
    }
    rest = {name: value for name, value in penalize.keywords.items() if name not in knobs}
    return functools.partial(penalize.func, *penalize.args, **rest), knobs


def miner_of(miner: str | Callable[..., mining.Triplets]) -> Callable[..., mining.Triplets]:
    """The miner of a name, or the function itself.

    Raises:
      InputError: the name is not known.
    """
    return lookup("miner", miner, mining.MINERS)


def _penalty_of(penalty: str | Callable[..., Array]) -> Callable[..., Array]:
    """The penalty of a name, or the function itself, whose margin the loss sets."""
    penalize = lookup("penalty", penalty, PENALTIES)
    if isinstance(penalize, functools.partial) and "margin" in penalize.keywords:
        margin = penalize.keywords["margin"]
        raise errors.InputError(
            f"penalty sets margin={margin!r}, and so does the loss: leave it out of the"
            " functools.partial, and give margin to the loss."
        )
    return penalize


def _mining_metric(
    precision: str,
    name: str | Callable[..., distances.Metric] | None,
    params: Mapping[str, Any] | None,
) -> distances.Metric | None:
    """The metric of mining, or None if it is that of the penalty."""
    if name is not None:
        if isinstance(name, str):
            errors.check_known("mining_metric", name, distances.METRICS)
        try:
            return distances.in_precision(precision, name, **(params or {}))
        except errors.InputError as error:
            message = errors.renamed(str(error), {"metric": "mining_metric"})
            raise errors.InputError(message) from None
    if params:
        raise errors.InputError(
            f"mining_metric_params={dict(params)} are given without mining_metric: name the metric."
        )
    return None


def _mean(
    total: sums.TripletSums, pairs: dict[str, Float[Array, ""]], average: str
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    denominator = total.active_weight if average == "active" else total.valid_weight
    loss = total.penalty / jnp.where(denominator > 0, denominator, 1.0)
    valid = jnp.maximum(total.valid, 1.0)
    stats = {
        "num_valid": total.valid,
        "num_active": total.active,
        "active_fraction": total.active / valid,
        "mean_d_ap": total.d_ap / valid,
        "mean_d_an": total.d_an / valid,
        **pairs,
    }
    return loss, jax.lax.stop_gradient(stats)


_SUITED = {
    mining.angular: ("euclidean",),
    mining.distance_weighted: ("euclidean",),
    penalties.selectively_contrastive: ("cosine",),
}


def check_metric_suits(
    function: Callable,
    metric: str | Callable[..., distances.Metric],
    suited: Mapping[Callable, tuple[str | Callable, ...]],
    field: str = "metric",
) -> None:
    """Refuses a metric for which a miner, a penalty or a loss is not defined.

    Args:
      function: the miner, the penalty or the loss, or a `functools.partial` of it.
      metric: the name of the metric, or the function that makes it.
      suited: the metrics that suit, for functions that do not suit all metrics.
      field: what the message calls the metric.

    Raises:
      InputError: the metric does not suit. The message names the metrics that do.
    """
    function = function.func if isinstance(function, functools.partial) else function
    allowed = next((names for judged, names in suited.items() if judged is function), None)
    if allowed is not None and _maker(metric) not in map(_maker, allowed):
        names = " or ".join(repr(distances.name_of(name)) for name in allowed)
        raise errors.InputError(
            f"{field}={distances.name_of(metric)!r} does not suit {function.__name__}, which is"
            f" defined for {field}={names}."
        )


def _maker(metric: str | Callable[..., distances.Metric]) -> str | Callable[..., distances.Metric]:
    """The function that makes a metric, without what a `functools.partial` sets."""
    metric = metric.func if isinstance(metric, functools.partial) else metric
    return metric if callable(metric) else distances.METRICS.get(metric, metric)


def lookup(field: str, name_or_function: str | Callable, table: Mapping[str, Callable]) -> Callable:
    """The function of a name, or the function itself.

    Raises:
      InputError: the name is not known.
    """
    if callable(name_or_function):
        return name_or_function
    errors.check_known(field, name_or_function, table)
    return table[name_or_function]
