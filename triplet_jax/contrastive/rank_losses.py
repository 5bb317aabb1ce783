"""Losses of ranks: how many candidates stand before an anchor's positives.

A rank counts, and so has no slope. Most losses here count with a sigmoid in place of a step: a
candidate c stands before the positive p as far as `sigmoid((s_ac - s_ap) / temperature)` says, with
`s = 1 - d`. The lower the temperature, the closer the count, and the fewer pairs have a slope.

The anchor is never its own positive. Some peers count it as one, at rank 1. A batch that is given
as `references` too does the same here.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from triplet_jax.engine import terms
from triplet_jax.engine.terms import Terms
from triplet_jax.mining import IsNegative, IsPositive, Number, ToNegatives, ToPositives

MOST_BINS = 64
"""The most bins of `fast_ap` where their number is traced."""
SHORT_LISTS = tuple(2**i for i in range(11))
"""The lengths k of the lists that `recall_at_k` may look at."""


@terms.of_all_pairs
def smooth_ap(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.01,
) -> Terms:
    """One minus the average precision of the anchor's ranking.

        1 - 1/|P| sum_p (1 + before_P(p)) / (1 + before_P(p) + before_N(p))
        before_X(p) = sum_(x in X, x != p) sigmoid((s_ax - s_ap) / temperature)

    The mean is over anchors with positives. Without a negative it is 0. Smooth-AP of Brown, Xie,
    Kalogeiton and Zisserman 2020, https://arxiv.org/abs/2007.12163. A class needs three examples
    for an order among its positives to count.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.5]), jnp.array([0.2])
      >>> print(contrastive.smooth_ap(d_ap, one, d_an, one).value)  # second: 1 - 1/2
      [0.5]
    """
    of_p = _before(to_positives, to_positives, is_positive, temperature, among_themselves=True)
    of_n = _before(to_positives, to_negatives, is_negative, temperature)
    return _mean_of_positives(of_n / (1.0 + of_p + of_n), is_positive)


@terms.of_all_pairs
def recall_at_k(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    most: Number = 16,
    temperature: Number = 0.01,
    rank_temperature: Number = 1.0,
) -> Terms:
    """One minus the share of the positives that are among the k nearest, for several k.

        1 - mean over k = 1, 2, 4, ... up to `most` of
            min(k, sum_p sigmoid((k - rank(p)) / rank_temperature)) / min(k, |P|)
        rank(p) = 1 + sum_(c != p) sigmoid((s_ac - s_ap) / temperature)

    c runs over positives and negatives, and the mean is over anchors with positives. `most` is at
    least 1 and at most 1,024. A positive at rank k counts half, so that a perfect ranking does not
    cost 0 (unless `rank_temperature` is low). The Recall@k surrogate of Patel, Tolias and Matas
    2022, https://arxiv.org/abs/2108.11179, with large batches; the divisor `min(k, |P|)` is that of
    its authors' code. Their similarity mixup is not here.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.2]), jnp.array([0.5])
      >>> print(contrastive.recall_at_k(d_ap, one, d_an, one, most=1).value)  # 1 - sigmoid(1 - 1)
      [0.5]
    """
    of_p = _before(to_positives, to_positives, is_positive, temperature, among_themselves=True)
    of_n = _before(to_positives, to_negatives, is_negative, temperature)
    k = jnp.asarray(SHORT_LISTS, jnp.float32)
    rank = 1.0 + of_p + of_n
    within = jax.nn.sigmoid((k[:, None] - rank[None, :]) / rank_temperature)
    found = jnp.sum(jnp.where(is_positive[None, :], within, 0.0), axis=1)
    count = jnp.sum(is_positive)
    recall = jnp.minimum(found, k) / jnp.minimum(k, jnp.maximum(count, 1))
    counted = k <= most
    mean = jnp.sum(jnp.where(counted, recall, 0.0)) / jnp.maximum(jnp.sum(counted), 1)
    return terms.one(jnp.where(count > 0, 1.0 - mean, 0.0), count > 0)


@terms.of_all_pairs
def pnp(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.01,
    power: Number = 1.0,
) -> Terms:
    """Only the negatives before a positive cost: the order among positives does not matter.

        1 - 1/|P| sum_p 1 / (1 + before(p))^power
        before(p) = sum_n sigmoid((s_an - s_ap) / temperature)

    The mean is over anchors with positives. A positive that many negatives precede has a small
    slope, since its label may be wrong; a higher power makes it smaller. PNP-D_q of Li et al. 2022,
    "Rethinking the Optimization of Average Precision", https://arxiv.org/abs/2102.04640.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.5]), jnp.array([0.2])
      >>> print(contrastive.pnp(d_ap, one, d_an, one, power=2.0).value)  # 1 - 1/2^2
      [0.75]
    """
    before = _before(to_positives, to_negatives, is_negative, temperature)
    return _mean_of_positives(-jnp.expm1(-power * jnp.log1p(before)), is_positive)


def fast_ap(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    bins: Number = 10,
) -> Terms:
    """One minus the average precision of a ranking in which the distances of a bin are equal.

        1 - 1/|P| sum_j h_j+ H_j+ / H_j

    h_j is the number of candidates at edge j of the `bins` equal parts of [0, 2], and h_j+ that of
    positives; each candidate is shared by the two edges around it. H are their running sums. The
    mean is over anchors with positives. It needs `metric="cosine"`, which is half the squared
    distance of the paper. Memory does not grow with the number of positives. FastAP of Cakir, He,
    Xia, Kulis and Sclaroff 2019, "Deep Metric Learning to Rank",
    https://doi.org/10.1109/CVPR.2019.00196, has large batches.

    Example:
      The positive is at edge 2 of 2, and the negative half at edge 1 and half at edge 0.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([2.0]), jnp.array([0.5])
      >>> print(contrastive.fast_ap(d_ap, one, d_an, one, bins=2).value)  # 1 - 1 * 1 / 2
      [0.5]
    """
    if isinstance(bins, int):
        edges = jnp.arange(bins + 1.0)
    else:
        # No candidate is beyond 2, so that edges there add nothing.
        edges, bins = jnp.arange(MOST_BINS + 1.0), jnp.clip(bins, 1, MOST_BINS)

    def histogram(distances, where):
        share = jax.nn.relu(1.0 - jnp.abs(distances * (bins / 2.0) - edges[:, None]))
        return jnp.sum(jnp.where(where[None, :], share, 0.0), axis=1)

    near = histogram(to_positives, is_positive)
    upto_near = jnp.cumsum(near)
    upto_all = upto_near + jnp.cumsum(histogram(to_negatives, is_negative))
    some = upto_all > 0
    precision = jnp.where(some, upto_near / jnp.where(some, upto_all, 1.0), 0.0)
    count = jnp.sum(is_positive)
    value = 1.0 - jnp.sum(near * precision) / jnp.maximum(count, 1)
    return terms.one(jnp.where(count > 0, value, 0.0), count > 0)


def ranked_list(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    boundary: Number = 1.2,
    margin: Number = 0.4,
    temperature: Number = 0.1,
    negative_share: Number = 0.5,
) -> Terms:
    """Positives belong into a ball, and negatives beyond its rim by a margin; near ones weigh most.

        (1 - negative_share) mean_p (d_ap - boundary + margin)
        + negative_share sum_n w_n (boundary - d_an) / sum_n w_n,  w_n = exp(-d_an / temperature)

    p and n run over the pairs whose summand is above 0; a sum over none is 0. The mean is over
    anchors with positives, and the gradient takes w_n as constants, so that `temperature` cannot be
    learned. Distances are Euclidean, of embeddings of length 1. Ranked list loss of Wang, Hua,
    Kodirov, Hu, Garnier and Robertson 2019, https://arxiv.org/abs/1903.03238, whose T is
    `1 / temperature`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([1.0]), jnp.array([0.95])
      >>> found = contrastive.ranked_list(d_ap, one, d_an, one, boundary=1.25, margin=0.5)
      >>> print(found.value)  # (0.25 + 0.3) / 2
      [0.275]
    """
    outside = is_positive & (to_positives > boundary - margin)
    inside = is_negative & (to_negatives < boundary)
    pull = jnp.sum(jnp.where(outside, to_positives - boundary + margin, 0.0))
    pull = pull / jnp.maximum(jnp.sum(outside), 1)
    nearest = jnp.min(jnp.where(inside, to_negatives, boundary))
    weight = jnp.exp(jnp.where(inside, (nearest - to_negatives) / temperature, 0.0))
    weight = jax.lax.stop_gradient(jnp.where(inside, weight, 0.0))
    total = jnp.sum(weight)
    push = jnp.sum(weight * jnp.where(inside, boundary - to_negatives, 0.0))
    push = push / jnp.where(total > 0, total, 1.0)
    has = jnp.any(is_positive)
    value = (1.0 - negative_share) * pull + negative_share * push
    return terms.one(jnp.where(has, value, 0.0), has)


def _before(
    to_positives: ToPositives,
    to_others: Float[Array, "candidates"],
    counts: Bool[Array, "candidates"],
    temperature: Number,
    *,
    among_themselves: bool = False,
) -> Float[Array, "positives"]:
    """How many of the others that count stand before each positive, without itself."""
    places = jnp.arange(len(to_others))

    def of_one(positive):
        distance, place = positive
        gap = (distance - to_others) / temperature
        counted = counts & (places != place) if among_themselves else counts
        return jnp.sum(jnp.where(counted, jax.nn.sigmoid(gap), 0.0))

    positives = to_positives, jnp.arange(len(to_positives))
    return terms.of_each_positive(of_one, positives, len(to_others))


def _mean_of_positives(value: Float[Array, "positives"], is_positive: IsPositive) -> Terms:
    count = jnp.sum(is_positive)
    mean = jnp.sum(jnp.where(is_positive, value, 0.0)) / jnp.maximum(count, 1)
    return terms.one(mean, count > 0)
