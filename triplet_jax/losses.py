"""The triplet loss: a miner, lifted over a batch, and a penalty on what it mined."""

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
from triplet_jax.engine import batches, gradient, rules, sums, sweep
from triplet_jax.engine import references as engine_references
from triplet_jax.engine.references import References as References

PENALTIES = penalties.PENALTIES
AVERAGES = ("active", "valid")


def triplet_loss(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
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
    derivatives: str = "first",
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The mean penalty of the triplets that a miner picks.

        loss = sum(weight * penalty(d_ap, d_an, margin)) / sum(weight)

    Both sums run over the triplets of every anchor on every device, so that the loss is
    one mean over the global batch and never a mean of means. The result does not depend
    on `tile_size` or on the number of devices, nor, but for miners that draw at random, on the
    order of the batch.

    Labels may be any integers up to 2^31 - 1, in any order and any imbalance.

    Args:
      embeddings: this device's rows; every row is an anchor. They are not normalised here, as
        PyTorch Metric Learning does by default. Of float16 and bfloat16 the loss is that of the
        same numbers in float32, and the gradient comes back in their type.
      labels: their classes, a list or an array `[batch]`.
      miner: a name in `mining.MINERS`, or a function with a miner's signature.
      metric: a name in `distances.METRICS`, or a function as those in it are.
      metric_params: its parameters: `p` of minkowski, `precision` of mahalanobis.
      mining_metric: the metric by which the miner picks triplets, where it is another than that of
        the penalty. The mean distances in the stats are those of the penalty.
      mining_metric_params: its parameters.
      margin: in the units of the metric; may be traced.
      penalty: a name in `PENALTIES`, or a function `(d_ap, d_an, margin) -> value`; one
        that names `d_pn` as a keyword is given the distance from positive to negative.
        Floats set by `functools.partial` may be learned.
      average: the denominator: "active", the triplets whose penalty is not zero, or
        "valid", all that were mined.
      references: the candidates, in place of the rows of the batch: an array `[references, dim]` of
        which each device has its part, or `References`, which say more. Without them the
        candidates are the rows of the batch, and no row is its own positive.
      reference_labels: the classes of an array of references.
      mask: which rows of the batch count; the others are neither anchors nor candidates, so a
        batch of a fixed shape may hold fewer examples. None for all.
      key: for miners that draw at random. The same on every device.
      tile_size: the most anchors at a time. Memory is about `tile_size * candidates`, or that
        times the positives of an anchor for a miner that answers with all pairs. None
        chooses a size that suits the device.
      derivatives: "first" for first derivatives, which one sweep finds along with the value;
        "all" for derivatives of any order, such as a Hessian or a penalty on the gradient. Jax
        then differentiates the sums itself, which takes more time and memory.
      axis_name: the name of the device axis inside `pmap` or `shard_map`; candidates are then
        the rows of all devices.

    Returns:
      The loss, 0 where there is no triplet, and a dict of float scalars over the global
      batch: `num_valid` and `num_active` triplets (exact up to 2^24), `active_fraction`,
      `mean_d_ap` and `mean_d_an` over the valid ones, and `num_positive_pairs` and
      `num_negative_pairs`, the anchor-candidate pairs that the batch offers.

    Raises:
      InputError: a name is not known, an array has another shape or kind than it should, labels
        are not integers below 2^31, references come without labels, a random miner without a
        key, a tile size below 1, or a miner or penalty with a metric for which it is not defined;
        and a second derivative with `derivatives="first"`.

    Distances of picked triplets are measured again as differences, so that near duplicates
    lose no digits. A pick that is not one of the distances the miner was given makes the
    loss NaN. Which triplets are picked, and their weights, are constants to every derivative.
    """
    mine = miner_of(miner)
    penalize = lookup("penalty", penalty, PENALTIES)
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

    made = distances.make(metric, **(metric_params or {}))
    mined_by = _mining_metric(mining_metric, mining_metric_params)
    penalize, knobs = numbers_of(penalize)
    batch = batches.prepare(
        made,
        embeddings,
        labels,
        references=engine_references.of_arguments(references, reference_labels),
        mask=mask,
        axis_name=axis_name,
        mining_metric=mined_by,
    )
    total = sweep.over_anchors(
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
    """The mean penalty of triplets that are given, row by row; nothing is mined.

        loss = sum(penalty(d(a_i, p_i), d(a_i, n_i), margin)) / number of triplets that count

    For files of triplets, for triplets that people labelled, and for a miner outside of this
    library. Distances are measured as differences, so that near duplicates lose no digits. The
    loss is ordinary jax code: it has derivatives of any order, forward and reverse.

    Args:
      anchors: row i belongs to row i of the other two. Rows are not normalised.
      positives: rows of the anchors' classes.
      negatives: rows of other classes.
      metric: a name in `distances.METRICS`, or a function as those in it are.
      margin: in the units of the metric; may be traced.
      penalty: as in `triplet_loss`; one that names `d_pn` is given the distance from positive to
        negative.
      average: the denominator: "active", the triplets whose penalty is not zero, or "valid", all
        that the mask shows.
      mask: which triplets count, so that a batch of a fixed shape may hold fewer; None for all.
        Hidden rows may hold anything, NaN included.
      axis_name: the name of the device axis inside `pmap`; each device then has a part of the
        triplets, and the mean is over all of them.
      **params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.

    Returns:
      The loss, 0 where no triplet counts, and a dict of float scalars over all devices:
      `num_valid`, `num_active`, `active_fraction`, `mean_d_ap` and `mean_d_an`.

    Raises:
      InputError: the arrays differ in shape, a name is not known, or the metric does not suit the
        penalty.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import losses
      >>> a, p, n = jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]]), jnp.array([[1.5, 0.0]])
      >>> loss, stats = losses.of_triplets(a, p, n, margin=1.0)
      >>> print(f"{loss:.2f} of {stats['num_valid']:.0f} triplet")
      0.50 of 1 triplet
    """
    penalize = lookup("penalty", penalty, PENALTIES)
    errors.check_known("average", average, AVERAGES)
    check_metric_suits(penalize, metric, _SUITED)
    made = distances.make(metric, **params)
    rows = _rows_of_triplets(anchors=anchors, positives=positives, negatives=negatives)
    mask = arguments.mask("mask", mask, len(rows[0]))
    if mask is not None:
        # Before anything is measured, or what is hidden has a gradient of NaN.
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


def _rows_of_triplets(**arrays):
    """The three arrays in float32, once they are known to have one shape."""
    found = [arguments.rows(name, x) for name, x in arrays.items()]
    if len({x.shape for x in found}) > 1:
        raise errors.InputError(
            "anchors, positives and negatives have the shapes {}, {} and {}: all three must have"
            " one shape [triplets, dim].".format(*(x.shape for x in found))
        )
    return found


def numbers_of(penalize: Callable) -> tuple[Callable, dict[str, Array]]:
    """A function without the float knobs that a partial sets, and these, for their gradient."""
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


def _mining_metric(name, params):
    """The metric of mining, or None for that of the penalty."""
    if name is not None:
        if isinstance(name, str):
            errors.check_known("mining_metric", name, distances.METRICS)
        return distances.make(name, **(params or {}))
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
    suited: Mapping[Callable, tuple[str, ...]],
    field: str = "metric",
) -> None:
    """Refuses a metric for which a miner, a penalty or a loss is not defined.

    Args:
      function: itself, or a `functools.partial` of it.
      metric: its name, or the function that makes it.
      suited: the metrics of functions that are not defined for all.
      field: what the metric is called in the message.

    Raises:
      InputError: naming those that suit.
    """
    function = function.func if isinstance(function, functools.partial) else function
    allowed = suited.get(function, (metric,))
    if metric not in allowed:
        raise errors.InputError(
            f"{field}={distances.name_of(metric)!r} does not suit {function.__name__}, which is"
            f" defined for {field}={' or '.join(map(repr, allowed))}."
        )


def lookup(field: str, name_or_function: str | Callable, table: Mapping[str, Callable]) -> Callable:
    """The function of a name, or the function itself.

    Raises:
      InputError: the name is not known.
    """
    if callable(name_or_function):
        return name_or_function
    errors.check_known(field, name_or_function, table)
    return table[name_or_function]
