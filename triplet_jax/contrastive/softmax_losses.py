"""Losses in which a positive has to win a softmax over an anchor's candidates."""

import jax.numpy as jnp

from triplet_jax.engine import terms
from triplet_jax.engine.terms import Number, Terms
from triplet_jax.mining import IsNegative, IsPositive, ToNegatives, ToPositives


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
