"""Losses in which a positive has to win a softmax over an anchor's candidates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.engine import terms
from triplet_jax.engine.terms import Terms
from triplet_jax.mining import IsNegative, IsPositive, Number, ToNegatives, ToPositives


def info_nce(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 0.1,
    hardness_strength: Number = 0.0,
) -> Terms:
    """Compares each positive with all negatives: a softmax in which the positive has to win.

        -log(exp(s_ap / t) / (exp(s_ap / t) + sum_n exp(s_an / t + hardness_strength sg(s_an))))

    It is the mean over pairs (a, p). A positive without negatives costs 0. InfoNCE of van den Oord,
    Li and Vinyals 2018, https://arxiv.org/abs/1807.03748. With two views of each image and no
    labels it is NT-Xent of SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709). With a
    proxy for each class as references it is ProxyNCA++ (Teh, DeVries and Taylor 2020,
    https://arxiv.org/abs/2004.01113), that is Proxy-NCA (Movshovitz-Attias et al. 2017,
    https://arxiv.org/abs/1703.07464) with the positive in the denominator; for unit vectors its
    squared distances are cosines with half the temperature. With class weights as references and
    inner products it is the softmax of a classifier.

    A hardness strength above 0 gives harder negatives a larger weight, exp(hardness_strength s_an),
    which the gradient takes as a constant (sg). It is 9 in Lan et al. 2025,
    https://arxiv.org/abs/2503.04812, and 5 in EmbeddingGemma (Schechter Vera et al. 2025,
    https://arxiv.org/abs/2509.20354), which weighs only the negatives mined for the anchor. This is
    `hardness_mode="all_negatives"` of sentence-transformers.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.info_nce(d, one, d, one).value[0]:.3f}")  # log 2
      0.693
    """
    s_ap = (1.0 - to_positives) / temperature
    s_an = weighted_by_hardness(1.0 - to_negatives, temperature, hardness_strength)
    return terms.each_against_all(s_ap, is_positive, s_an, is_negative)


def weighted_by_hardness(
    s_an: Float[Array, "negatives"], temperature: Number, hardness_strength: Number
) -> Float[Array, "negatives"]:
    """The logits of negatives, each with the logarithm of its weight, which is a constant."""
    return s_an / temperature + hardness_strength * jax.lax.stop_gradient(s_an)


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


def nca(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    temperature: Number = 1.0,
) -> Terms:
    """Minus the logarithm of the chance that a neighbour, drawn by distance, is of the same class.

        -log(sum_p exp(-d_ap / t) / sum_c exp(-d_ac / t)),  mean over anchors with positives

    c runs over positives and negatives. One near positive suffices, so that a class may have
    several clusters. Distances are squared Euclidean ones. Neighbourhood components analysis of
    Goldberger, Roweis, Hinton and Salakhutdinov 2004,
    https://papers.nips.cc/paper/2004/hash/42fe880812925e520249e808937738d2-Abstract.html, here with
    the logarithm.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d = jnp.array([True]), jnp.array([0.5])
      >>> print(f"{contrastive.nca(d, one, d, one).value[0]:.3f}")  # log 2
      0.693
    """
    near = terms.log_sum_exp(-to_positives / temperature, is_positive)
    far = terms.log_sum_exp(-to_negatives / temperature, is_negative)
    has = jnp.any(is_positive)
    return terms.one(jnp.where(has, jax.nn.softplus(jnp.where(has, far - near, 0.0)), 0.0), has)


def tuplet_margin(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    slack: Number = 0.1,
    scale: Number = 64.0,
) -> Terms:
    """Compares each positive with all negatives, and forgives it an angle.

        log(1 + sum_n exp(scale (s_an - cos(theta_ap - slack)))),  mean over pairs (a, p)

    The slack is in radians; it spares positives that cannot come nearer. It needs
    `metric="cosine"`. Yu and Tao 2019, "Deep Metric Learning with Tuplet Margin Loss",
    https://doi.org/10.1109/ICCV.2019.00659. There a tuplet has one negative of each other class;
    here all negatives count.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), 1 - jnp.cos(jnp.array([1.0])), jnp.array([0.5])
      >>> found = contrastive.tuplet_margin(d_ap, one, d_an, one, slack=1.0 - jnp.pi / 3)
      >>> print(f"{found.value[0]:.3f}")  # log 2: cos(pi / 3) is 0.5, as s_an is
      0.693
    """
    s_ap = scale * terms.turned(1.0 - to_positives, -slack)
    return terms.each_against_all(s_ap, is_positive, scale * (1.0 - to_negatives), is_negative)
