"""InfoNCE among negatives of which some are of the anchor's class, though their labels differ.

Where labels are wrong or too fine, or where images are their own classes, the nearest negatives are
often no negatives at all. `positive_aware` leaves out those that are about as near as the positive;
`debiased` keeps all, and takes off what they are expected to add.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.contrastive import softmax_losses
from triplet_jax.engine import terms
from triplet_jax.engine.terms import Terms
from triplet_jax.mining import IsNegative, IsPositive, Number, ToNegatives, ToPositives


@terms.of_all_pairs
def positive_aware(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.1,
    absolute_margin: Number = 0.0,
    relative_margin: Number = 0.05,
    hardness_strength: Number = 0.0,
) -> Terms:
    """Compares each positive with the negatives that are clearly less similar to the anchor.

        -log(exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t + hardness_strength sg(s_an))))
        n: s_an <= s_ap - absolute_margin - relative_margin |s_ap|,  mean over pairs (a, p)

    It is `info_nce` without the negatives that are as similar as the positive, since these may be
    wrong: with an absolute margin, or with one in proportion to the positive's similarity. Both are
    rules of NV-Retriever (de Souza P. Moreira et al. 2024, https://arxiv.org/abs/2407.15831), whose
    best has a relative margin of 0.05. A margin may be below 0: from -2 on, which is how far
    apart cosines can be, an absolute margin leaves no negative out. A positive whose negatives are
    all left out costs 0, and is part of the mean.

    While the other margin is 0, each is that of `mine_hard_negatives` and `GISTEmbedLoss` in
    sentence-transformers. With both, `mine_hard_negatives` takes the larger margin, and not their
    sum. If there are several positives, it compares negatives with the least similar one; here each
    positive has its own negatives.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, two = jnp.array([True]), jnp.array([True, True])
      >>> d_ap, d_an = jnp.array([0.5]), jnp.array([0.51, 0.5])
      >>> found = contrastive.positive_aware(d_ap, one, d_an, two, relative_margin=0.01)
      >>> print(f"{found.value[0]:.2f}")  # log(1 + exp((0.49 - 0.5) / 0.1)), of the first alone
      0.64
    """
    s_ap, s_an = 1.0 - to_positives, 1.0 - to_negatives
    most = jax.lax.stop_gradient(s_ap - absolute_margin - relative_margin * jnp.abs(s_ap))
    logits = softmax_losses.weighted_by_hardness(s_an, temperature, hardness_strength)

    def of_one(most):
        return terms.log_sum_exp(logits, is_negative & (jax.lax.stop_gradient(s_an) <= most))

    negatives = terms.of_each_positive(of_one, most, len(s_an))
    value = jnp.where(is_positive, jax.nn.softplus(negatives - s_ap / temperature), 0.0)
    return terms.one(jnp.sum(value), jnp.sum(is_positive))


def debiased(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.5,
    prior: Number = 0.1,
    concentration: Number = 0.0,
) -> Terms:
    """InfoNCE, less what negatives of the anchor's own class are expected to add.

        -log(exp(s_ap / t) / (exp(s_ap / t) + N g)),  mean over pairs (a, p)
        g = max((E_n - prior E_p) / (1 - prior), exp(-1 / t))
        E_n = sum_n exp((1 + concentration) s_an / t) / sum_n exp(concentration s_an / t)
        E_p = mean_p exp(s_ap / t)

    N is the number of negatives. `prior`, in [0, 1), is the share of them that are positives in
    truth: 1 / classes, if images are drawn at random. Chuang, Robinson, Lin, Torralba and Jegelka
    2020, https://arxiv.org/abs/2007.00224. With a concentration above 0 harder negatives weigh
    more: Robinson, Chuang, Sra and Jegelka 2021, https://arxiv.org/abs/2010.04592. With both 0 it
    is `info_nce`. Only the cosine has the lower bound exp(-1 / t), so `metric="cosine"`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([1.0]), jnp.array([1.0])
      >>> print(f"{contrastive.debiased(d_ap, one, d_an, one, prior=0.2).value[0]:.3f}")  # log 2
      0.693
      >>> print(f"{contrastive.debiased(d_ap, one, d_an - 0.5, one).value[0]:.3f}")
      1.363
    """
    s_ap, s_an = (1.0 - to_positives) / temperature, (1.0 - to_negatives) / temperature
    weights = terms.log_sum_exp(concentration * s_an, is_negative)
    of_n = terms.log_sum_exp((1.0 + concentration) * s_an, is_negative) - weights
    of_p = terms.log_sum_exp(s_ap, is_positive) - _log_of_count(is_positive)
    both = jnp.any(is_positive) & jnp.any(is_negative)
    of_n, of_p = jnp.where(both, of_n, 0.0), jnp.where(both, of_p, 0.0)
    others = _log_of_count(is_negative) + _log_debiased(of_n, of_p, prior, -1.0 / temperature)
    value = jnp.where(is_positive & both, jax.nn.softplus(others - s_ap), 0.0)
    return terms.one(jnp.sum(value), jnp.sum(is_positive))


def _log_debiased(
    of_n: Float[Array, ""], of_p: Float[Array, ""], prior: Number, least: Number
) -> Float[Array, ""]:
    """`log((exp(of_n) - prior exp(of_p)) / (1 - prior))`, at least `least`; stable."""
    most = jax.lax.stop_gradient(jnp.maximum(of_n, of_p))
    rest = jnp.exp(of_n - most) - prior * jnp.exp(of_p - most)
    left = rest > 0
    found = jnp.log(jnp.where(left, rest, 1.0)) + most - jnp.log1p(-prior)
    return jnp.where(left & (found > least), found, least)


def _log_of_count(mask: IsPositive) -> Float[Array, ""]:
    return jnp.log(jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32))
