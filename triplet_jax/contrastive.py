"""Contrastive losses see all positives and negatives of an anchor at once.

A loss is a pure function of one anchor, with the signature of a miner:

    loss(to_positives, is_positive, to_negatives, is_negative) -> Terms

`to_positives` holds the anchor's distances `[positives]` to the candidates of its own class, in the
units of the metric; where `is_positive` is False they are padding. `to_negatives` holds its
distances `[negatives]` to all candidates; `is_negative` is True where these are of other classes.
`contrastive_loss` applies the function to a batch, in tiles of anchors and over devices:

    loss = sum over terms of  sum(value) / sum(weight)

Both sums run over the anchors of all devices, and a term without weight is 0. Keywords are knobs:
`functools.partial` sets them, and they may be traced and learned.

Losses that the literature writes in similarities take `s = 1 - d`: the cosine with
`metric="cosine"`, the inner product with `metric="dot"`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from triplet_jax import arguments, distances, errors, losses
from triplet_jax.devices import collectives
from triplet_jax.engine import anchor_sums, batches, gradient, rules, terms
from triplet_jax.engine.terms import Terms as Terms
from triplet_jax.mining import IsNegative, IsPositive, ToNegatives, ToPositives
from triplet_jax.relations import Relation

Number = Float[Array, ""] | float


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
    """Pulls positives nearer than one margin and pushes negatives farther than another.

        mean of max(0, d_ap - positive_margin)^power  +  mean of max(0, margin - d_an)^power

    Each mean is over the pairs whose summand is not 0, in batches of any kind: negatives count even
    where no class has two examples. Distances are Euclidean. The contrastive loss of Hadsell,
    Chopra and LeCun 2006, https://doi.org/10.1109/CVPR.2006.100, has power 2; that of PyTorch
    Metric Learning has power 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([1.5]), jnp.array([0.5])
      >>> contrastive.pairs(d_ap, one, d_an, one).value.tolist()  # 1.5^2 and (1 - 0.5)^2
      [2.25, 0.25]
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
    """Compares each positive with all negatives: a softmax in which the positive has to win.

        -log(exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t))),  mean over pairs (a, p)

    A positive without negatives costs 0. InfoNCE of van den Oord, Li and Vinyals 2018,
    https://arxiv.org/abs/1807.03748. With two views of each image and no labels it is NT-Xent of
    SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709). With a proxy for each class as
    references it is ProxyNCA++ (Teh, DeVries and Taylor 2020, https://arxiv.org/abs/2004.01113),
    that is Proxy-NCA (Movshovitz-Attias et al. 2017, https://arxiv.org/abs/1703.07464) with the
    positive in the denominator; for unit vectors its squared distances are cosines with half the
    temperature. With class weights as references and inner products it is the softmax of a
    classifier.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.info_nce(d, one, d, one).value[0]:.3f}")  # log 2
      0.693
    """
    s_ap, s_an = (1.0 - to_positives) / temperature, (1.0 - to_negatives) / temperature
    return terms.each_against_all(s_ap, is_positive, s_an, is_negative)


def n_pairs(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Terms:
    """`log(1 + sum_n exp(s_an - s_ap))`, mean over pairs (a, p): `info_nce` with temperature 1.

    It takes inner products (`metric="dot"`) of embeddings whose length is free. Sohn 2016,
    "Improved Deep Metric Learning with Multi-class N-pair Loss Objective",
    https://papers.nips.cc/paper/2016/hash/6b180037abbebea991d8b1232f8a8ca9-Abstract.html, has two
    examples a class. There the negatives are the partners of the other anchors; here they are all
    examples of other classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.n_pairs(d, one, d, one).value[0]:.3f}")  # log 2
      0.693
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
    """Compares the positives with everything; their average is outside of the logarithm.

        -1/|P| sum_p log(exp(s_ap / t) / sum_c exp(s_ac / t)),  mean over anchors with positives

    c runs over positives and negatives. Without a negative the positives are still compared with
    each other: n equal embeddings of one class cost log(n - 1), where PyTorch Metric Learning 2.9
    gives 0. SupCon, L_out in equation 2 of Khosla et al. 2020, https://arxiv.org/abs/2004.11362. A
    class needs two examples; with more, an average has more positives.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.supervised_contrastive(d, one, d, one).value[0]:.3f}")  # log 2
      0.693
    """
    s_ap, s_an = (1.0 - to_positives) / temperature, (1.0 - to_negatives) / temperature
    everything = jnp.logaddexp(
        terms.log_sum_exp(s_ap, is_positive), terms.log_sum_exp(s_an, is_negative)
    )
    count = jnp.sum(is_positive)
    mean = jnp.sum(jnp.where(is_positive, s_ap, 0.0)) / jnp.maximum(count, 1)
    return terms.one(jnp.where(count > 0, everything - mean, 0.0), count > 0)


def lifted(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 1.0,
) -> Terms:
    """`max(0, log sum_p exp(d_ap) + log sum_n exp(margin - d_an))`, mean over anchors with both.

    Equation 10 of Hermans, Beyer and Leibe 2017, https://arxiv.org/abs/1703.07737, after the lifted
    structure of Oh Song, Xiang, Jegelka and Savarese 2016, https://arxiv.org/abs/1511.06452.
    Distances are Euclidean, and a class needs two examples, as for a triplet loss.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([1.0]), jnp.array([1.5])
      >>> print(contrastive.lifted(d_ap, one, d_an, one, margin=1.0).value)  # 1 + (1 - 1.5)
      [0.5]
    """
    far = terms.log_sum_exp(to_positives, is_positive)
    near = terms.log_sum_exp(margin - to_negatives, is_negative)
    return terms.of_both(far + near, is_positive, is_negative, jax.nn.relu)


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
    """Pulls positives below a similarity and pushes negatives above it; the worst weigh most.

        log(1 + sum_p exp(-alpha (s_ap - base))) / alpha
        + log(1 + sum_n exp(beta (s_an - base))) / beta,  mean over anchors with positives

    All pairs count; the paper's miner is `mining.multi_similarity`. Wang, Han, Huang, Dong and
    Scott 2019, https://arxiv.org/abs/1904.06627, have 5 examples a class in a batch.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.multi_similarity(d, one, d, one).value[0]:.3f}")  # 0.52 log 2
      0.360
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    near = terms.log_one_more(-alpha * (s_ap - base), is_positive) / alpha
    far = terms.log_one_more(beta * (s_an - base), is_negative) / beta
    has = jnp.any(is_positive)
    return terms.one(jnp.where(has, near + far, 0.0), has)


def circle(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.25,
    scale: Number = 256.0,
) -> Terms:
    """Pulls each similarity towards its optimum, and more strongly the farther away it is.

        log(1 + sum_n exp(scale a_n (s_an - margin)) sum_p exp(-scale a_p (s_ap - 1 + margin)))
        a_p = max(0, 1 + margin - s_ap),  a_n = max(0, s_an + margin),  mean over anchors with both

    The gradient takes a_p and a_n as constants. Equation 6 of Sun et al. 2020,
    https://arxiv.org/abs/2002.10857. The defaults are those of its face recognition; its retrieval
    has a margin of 0.4 and a scale of 80. A class needs two examples.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.25]), jnp.array([0.75])
      >>> print(f"{contrastive.circle(d_ap, one, d_an, one).value[0]:.3f}")  # log 2
      0.693
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    a_p = jax.lax.stop_gradient(jax.nn.relu(1.0 + margin - s_ap))
    a_n = jax.lax.stop_gradient(jax.nn.relu(s_an + margin))
    far = terms.log_sum_exp(-scale * a_p * (s_ap - 1.0 + margin), is_positive)
    near = terms.log_sum_exp(scale * a_n * (s_an - margin), is_negative)
    return terms.of_both(far + near, is_positive, is_negative, jax.nn.softplus)


def proxy_anchor(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.1,
    scale: Number = 32.0,
) -> Terms:
    """Takes the proxies as anchors, and the batch as what they are compared with.

        mean over proxies with positives of log(1 + sum_p exp(-scale (s_ap - margin)))
        + mean over all proxies of log(1 + sum_n exp(scale (s_an + margin)))

    Give the proxies as `embeddings` and the batch as `references`. Equation 4 of Kim, Kim, Cho and
    Kwak 2020, https://arxiv.org/abs/2003.13911.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.9]), jnp.array([1.1])
      >>> print(contrastive.proxy_anchor(d_ap, one, d_an, one).value.round(3))  # log 2, twice
      [0.693 0.693]
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    has = jnp.any(is_positive)
    near = terms.log_one_more(-scale * (s_ap - margin), is_positive)
    far = terms.log_one_more(scale * (s_an + margin), is_negative)
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
    """A softmax over class weights, with the angle to the own class made larger by `margin`.

        -log(e / (e + sum_n exp(scale s_an)))  with  e = exp(scale cos(theta_y + margin))

    The margin is in radians. Class weights are the `references`, with `metric="cosine"`. Where
    theta_y + margin passes pi, the cosine goes on as the straight line `s - margin sin(pi -
    margin)`. Deng, Guo, Xue and Zafeiriou 2019, https://arxiv.org/abs/1801.07698.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), 1 - jnp.cos(jnp.array([0.5])), jnp.array([0.5])
      >>> found = contrastive.arcface(d_ap, one, d_an, one, margin=jnp.pi / 3 - 0.5)
      >>> print(f"{found.value[0]:.3f}")  # log 2: cos(pi / 3) is 0.5, as s_an is
      0.693
    """
    cosine = jnp.clip(1.0 - to_positives, -1.0, 1.0)
    inside = jnp.clip(cosine, -1.0 + 1e-6, 1.0 - 1e-6)  # where the slope of the sine is finite
    sine = jnp.sqrt(1.0 - inside * inside)
    moved = inside * jnp.cos(margin) - sine * jnp.sin(margin)
    straight = cosine - margin * jnp.sin(jnp.pi - margin)
    s_ap = jnp.where(cosine > jnp.cos(jnp.pi - margin), moved, straight)
    return terms.each_against_all(
        scale * s_ap, is_positive, scale * (1.0 - to_negatives), is_negative
    )


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
"""The losses of one anchor, by name."""


# The metrics of losses whose formulas have similarities, and not distances.
_SUITED = {
    **{loss: ("cosine", "dot") for loss in LOSSES.values() if loss not in (lifted, pairs)},
    arcface: ("cosine",),
}


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
        need "cosine" or "dot"; `arcface` needs "cosine".
      metric_params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.
      references: the candidates in place of the batch's own rows: proxies, class weights, a queue
        or the other modality. An array `[references, dim]` of which each device has a part, or
        `losses.References`, which may also be shared by all devices, as proxies are, or masked.
      reference_labels: the classes of an array of references.
      mask: which rows of the batch count; None for all.
      tile_size: the most anchors at a time; None chooses. Memory is about `tile_size * candidates`
        numbers.
      derivatives: "first" or "all", as in `losses.triplet_loss`.
      axis_name: the name of the device axis inside `pmap` or `shard_map`.

    Returns:
      The loss, which is 0 if no anchor counts, and a dict of float scalars over the global batch:
      `num_positive_pairs` and `num_negative_pairs`, `mean_d_ap` and `mean_d_an` over these pairs,
      and `num_valid`, the denominator of the first term.

    Raises:
      InputError: a name is not known, an array has the wrong shape or type, labels are not integers
        below 2^31, references come without labels, the tile size is below 1, or the loss is one of
        similarities and the metric has none. With `derivatives="first"`, a second derivative is
        refused too.

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
    losses.check_metric_suits(measure, metric, _SUITED)
    made = distances.make(metric, **(metric_params or {}))
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
        # which saves more than it costs to measure the distances once more. If all anchors are one
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
