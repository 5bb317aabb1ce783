"""Losses that see an anchor's positives and negatives all at once.

A loss is a pure function of one anchor, as a miner is; `contrastive_loss` lifts it over
batches, tiles and devices. It is given the anchor's distances and answers with terms,

    loss = sum over terms of  sum(value) / sum(weight)

where both sums run over the anchors of all devices. Losses that the literature writes in
similarities take them as `s = 1 - d`, so that `metric="cosine"` gives the cosine and
`metric="dot"` the inner product.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances, errors, losses
from triplet_jax.devices import collectives
from triplet_jax.engine import batches, gradient, rules, sweep
from triplet_jax.engine import references as engine_references
from triplet_jax.mining import IsNegative, IsPositive, ToNegatives, ToPositives

Number = Float[Array, ""] | float


class Terms(NamedTuple):
    """What one anchor adds to each term of a loss."""

    value: Float[Array, "terms"]
    weight: Float[Array, "terms"]
    """Its share of the denominator, no function of the distances' gradient."""


def pairs(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 1.0,
    positive_margin: Number = 0.0,
    power: Number = 2.0,
) -> Terms:
    """Positives nearer than one margin, negatives farther than another.

        mean of max(0, d_ap - positive_margin)^power + mean of max(0, margin - d_an)^power

    each over the pairs where it is not zero. The contrastive loss of Hadsell et al. 2006,
    "Dimensionality Reduction by Learning an Invariant Mapping", with power 2; PyTorch Metric
    Learning has power 1. It takes any batch, and learns of negatives even where no class has two
    examples; distances are Euclidean: `metric="euclidean"`.
    """
    near = jax.nn.relu(to_positives - positive_margin) ** power
    far = jax.nn.relu(margin - to_negatives) ** power
    near, far = jnp.where(is_positive, near, 0.0), jnp.where(is_negative, far, 0.0)
    return Terms(
        jnp.stack([jnp.sum(near), jnp.sum(far)]),
        jnp.stack([jnp.sum(near > 0), jnp.sum(far > 0)]).astype(jnp.float32),
    )


def info_nce(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.1,
) -> Terms:
    """Each positive against all negatives, a softmax of which it is to be the largest.

        -log(exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t))),  mean over pairs (a, p)

    InfoNCE of van den Oord et al. 2018; with two views of each image and no labels, NT-Xent of
    SimCLR (Chen et al. 2020). With a table of proxies as references it is ProxyNCA++ (Teh et al.
    2020): Proxy-NCA of Movshovitz-Attias et al. 2017 with the positive in the denominator; for
    unit vectors its squared distances are cosines with half the temperature. With class weights
    as references and inner products it is the softmax of a classifier.
    """
    s_ap, s_an = (1.0 - to_positives) / temperature, (1.0 - to_negatives) / temperature
    return _each_against_all(s_ap, is_positive, s_an, is_negative)


def n_pairs(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Terms:
    """`log(1 + sum_n exp(s_an - s_ap))`, mean over pairs (a, p): `info_nce` with temperature 1.

    Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", with
    inner products (`metric="dot"`) of embeddings whose length is free, and batches of two examples
    a class. There an anchor's negatives are the partners of the other anchors; here all others.
    """
    return info_nce(to_positives, is_positive, to_negatives, is_negative, temperature=1.0)


def supervised_contrastive(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.1,
) -> Terms:
    """The positives against everything, averaged over positives outside the logarithm.

        -1/|P| sum_p log(exp(s_ap / t) / sum_c exp(s_ac / t)),  mean over anchors with positives

    c running over positives and negatives. SupCon, L_out of Khosla et al. 2020, equation 2. It
    takes batches with two examples or more of a class; the more, the more positives an average has.
    Without a negative the positives are still compared with each other: n equal embeddings of
    one class cost log(n - 1), where PyTorch Metric Learning 2.9 gives 0.
    """
    s_ap, s_an = (1.0 - to_positives) / temperature, (1.0 - to_negatives) / temperature
    everything = jnp.logaddexp(_log_sum_exp(s_ap, is_positive), _log_sum_exp(s_an, is_negative))
    count = jnp.sum(is_positive)
    mean = jnp.sum(jnp.where(is_positive, s_ap, 0.0)) / jnp.maximum(count, 1)
    return _one(jnp.where(count > 0, everything - mean, 0.0), count > 0)


def lifted(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 1.0,
) -> Terms:
    """`max(0, log sum_p exp(d_ap) + log sum_n exp(margin - d_an))`, mean over anchors with both.

    The generalised lifted structure loss of Hermans et al. 2017, equation 10, after Oh Song et
    al. 2016, who take Euclidean distances: `metric="euclidean"`. It takes batches of P classes with
    K examples each, K at least 2, as a triplet loss does.
    """
    far = _log_sum_exp(to_positives, is_positive)
    near = _log_sum_exp(margin - to_negatives, is_negative)
    return _of_both(far + near, is_positive, is_negative, jax.nn.relu)


def multi_similarity(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    alpha: Number = 2.0,
    beta: Number = 50.0,
    base: Number = 0.5,
) -> Terms:
    """Positives below a similarity and negatives above it, the worst of each weighing most.

        log(1 + sum_p exp(-alpha (s_ap - base))) / alpha
        + log(1 + sum_n exp(beta (s_an - base))) / beta

    mean over anchors with positives. Wang et al. 2019, equation 9; the pairs that its miner keeps
    are not chosen here: all count. It takes batches of P classes with K examples each; the paper's
    have K = 5.
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    near = _log_one_more(-alpha * (s_ap - base), is_positive) / alpha
    far = _log_one_more(beta * (s_an - base), is_negative) / beta
    has = jnp.any(is_positive)
    return _one(jnp.where(has, near + far, 0.0), has)


def circle(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.25,
    scale: Number = 256.0,
) -> Terms:
    """Every similarity is pulled towards its optimum the more, the farther it is from it.

        log(1 + sum_n exp(scale a_n (s_an - margin)) sum_p exp(-scale a_p (s_ap - 1 + margin)))
        a_p = max(0, 1 + margin - s_ap),  a_n = max(0, s_an + margin), constants to the gradient

    mean over anchors with both. Sun et al. 2020, equation 6; margin and scale are those of
    its face recognition, 0.4 and 80 those of its retrieval. It takes batches of P classes with
    K examples each, K at least 2.
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    a_p = jax.lax.stop_gradient(jax.nn.relu(1.0 + margin - s_ap))
    a_n = jax.lax.stop_gradient(jax.nn.relu(s_an + margin))
    far = _log_sum_exp(-scale * a_p * (s_ap - 1.0 + margin), is_positive)
    near = _log_sum_exp(scale * a_n * (s_an - margin), is_negative)
    return _of_both(far + near, is_positive, is_negative, jax.nn.softplus)


def proxy_anchor(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.1,
    scale: Number = 32.0,
) -> Terms:
    """Proxies are the anchors and the batch is what they see.

        mean over proxies with positives of log(1 + sum_p exp(-scale (s_ap - margin)))
        + mean over all proxies of log(1 + sum_n exp(scale (s_an + margin)))

    Kim et al. 2020, equation 4. Give the proxies as `embeddings` and the batch as `references`.
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    has = jnp.any(is_positive)
    near = _log_one_more(-scale * (s_ap - margin), is_positive)
    far = _log_one_more(scale * (s_an + margin), is_negative)
    return Terms(jnp.stack([near, far]), jnp.stack([jnp.float32(has), jnp.float32(1)]))


def arcface(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.5,
    scale: Number = 64.0,
) -> Terms:
    """A softmax over class weights, in which the angle to the own class is `margin` larger.

        -log(e / (e + sum_n exp(scale s_an)))  with  e = exp(scale cos(theta_y + margin))

    Deng et al. 2019. Class weights are the `references`, with `metric="cosine"`. Where theta_y +
    margin passes pi, it goes on falling in a straight line, `s - margin sin(pi - margin)`.
    """
    cosine = jnp.clip(1.0 - to_positives, -1.0, 1.0)
    inside = jnp.clip(cosine, -1.0 + 1e-6, 1.0 - 1e-6)  # where the slope of the sine is finite
    sine = jnp.sqrt(1.0 - inside * inside)
    moved = inside * jnp.cos(margin) - sine * jnp.sin(margin)
    straight = cosine - margin * jnp.sin(jnp.pi - margin)
    s_ap = jnp.where(cosine > jnp.cos(jnp.pi - margin), moved, straight)
    return _each_against_all(scale * s_ap, is_positive, scale * (1.0 - to_negatives), is_negative)


LOSSES: dict[str, Callable[..., Terms]] = {
    "arcface": arcface,
    "circle": circle,
    "info_nce": info_nce,
    "lifted": lifted,
    "multi_similarity": multi_similarity,
    "n_pairs": n_pairs,
    "pairs": pairs,
    "proxy_anchor": proxy_anchor,
    "supervised_contrastive": supervised_contrastive,
}


# The metrics of those whose formulas have similarities, and not distances.
_SUITED = {
    **{loss: ("cosine", "dot") for loss in LOSSES.values() if loss not in (lifted, pairs)},
    arcface: ("cosine",),
}


def contrastive_loss(
    embeddings: Shaped[Array | np.ndarray, "batch dim"],
    labels: arguments.Labels,
    *,
    loss: str | Callable[..., Terms] = "info_nce",
    metric: str | Callable[..., distances.Metric] = "cosine",
    metric_params: Mapping[str, Any] | None = None,
    references: Shaped[Array | np.ndarray, "references dim"] | losses.References | None = None,
    reference_labels: arguments.Labels | None = None,
    mask: Bool[Array | np.ndarray, "batch"] | None = None,
    tile_size: int | None = None,
    derivatives: str = "first",
    axis_name: str | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """A loss of every anchor's positives and negatives, over the global batch.

        loss = sum over terms of  sum(value) / sum(weight)

    The sums run over the anchors of all devices; a term without weight is 0. The result does not
    depend on the order of the batch, on `tile_size` or on the number of devices.

    Args:
      embeddings: this device's rows; every row is an anchor. Of float16 and bfloat16 the loss is
        that of the same numbers in float32, and the gradient comes back in their type.
      labels: their classes, a list or an array `[batch]`.
      loss: a name in `LOSSES`, or a function with their signature; floats set by
        `functools.partial` may be traced, and learned.
      metric: a name in `distances.METRICS`, or a function as those in it are. Losses in
        similarities need "cosine" or "dot", `arcface` "cosine".
      metric_params: as in `losses.triplet_loss`.
      references: the candidates, in place of the rows of the batch: proxies, class weights, a
        queue, the other modality. An array `[references, dim]` of which each device has its part,
        or `losses.References`, which say more; proxies are `shared`.
      reference_labels: the classes of an array of references.
      mask: as in `losses.triplet_loss`.
      tile_size: the most anchors at a time; memory is about `tile_size * candidates`.
      derivatives: "first" or "all", as in `losses.triplet_loss`.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The loss, 0 where no anchor counts, and a dict of float scalars over the global batch:
      `num_positive_pairs` and `num_negative_pairs`, `mean_d_ap` and `mean_d_an` over all of them,
      and `num_valid`, the denominator of the first term.

    Raises:
      InputError: a name is not known, an array has another shape or kind than it should, labels
        are not integers below 2^31, references come without labels, a tile size is below 1, or a
        loss in similarities with a metric that has none; and a second derivative with
        `derivatives="first"`.
    """
    errors.check_known("derivatives", derivatives, gradient.DERIVATIVES)
    measure, knobs = losses.numbers_of(losses.lookup("loss", loss, LOSSES))
    losses.check_metric_suits(measure, metric, _SUITED)
    made = distances.make(metric, **(metric_params or {}))
    batch = batches.prepare(
        made,
        embeddings,
        labels,
        references=engine_references.of_arguments(references, reference_labels),
        mask=mask,
        axis_name=axis_name,
    )
    shares = jnp.ones(_number_of_terms(measure, knobs), jnp.float32)

    def sums_of(shares):
        rule = rules.AnchorRule(made, measure, shares)
        return sweep.over_anchors(rule, batch, knobs, tile_size, derivatives)

    if len(shares) > 1:
        # What each is divided by comes first, so that all of them have one gradient: to take the
        # distances once more costs less, and nothing where all of them are one tile.
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


def _number_of_terms(measure, knobs):
    row, mask = jax.ShapeDtypeStruct((1,), jnp.float32), jax.ShapeDtypeStruct((1,), bool)
    return jax.eval_shape(measure, row, mask, row, mask, **knobs).value.shape[0]


def _inverse(weight):
    return 1.0 / jnp.where(weight > 0, weight, 1.0)


def _one(value, weight):
    return Terms(value[None], jnp.float32(weight)[None])


def _each_against_all(s_ap, is_positive, s_an, is_negative):
    """A softmax for each positive, of it and of all negatives; the mean over positives."""
    negatives = _log_sum_exp(s_an, is_negative)
    value = jnp.where(is_positive, jax.nn.softplus(negatives - s_ap), 0.0)
    return _one(jnp.sum(value), jnp.sum(is_positive))


def _of_both(x, is_positive, is_negative, finish):
    """`finish(x)` of an anchor that has positives and negatives; the mean over such anchors."""
    both = jnp.any(is_positive) & jnp.any(is_negative)
    return _one(jnp.where(both, finish(jnp.where(both, x, 0.0)), 0.0), both)


def _log_sum_exp(x, where):
    """`log(sum(exp(x)))`, stable; of nothing it is -1e30, with no gradient."""
    most = jax.lax.stop_gradient(jnp.max(jnp.where(where, x, -_HUGE)))
    most = jnp.where(jnp.any(where), most, 0.0)
    # Never above 0, even where rounding gave the compiler's two copies of x other last digits.
    below = x - jax.lax.stop_gradient(jnp.maximum(x, most))
    total = jnp.sum(jnp.where(where, jnp.exp(jnp.where(where, below, 0.0)), 0.0))
    found = total > 0
    return jnp.where(found, jnp.log(jnp.where(found, total, 1.0)) + most, -_HUGE)


def _log_one_more(x, where):
    """`log(1 + sum(exp(x)))`."""
    return jax.nn.softplus(_log_sum_exp(x, where))


_HUGE = 1e30
