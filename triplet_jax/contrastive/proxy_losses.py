"""Losses of a batch against a vector for each class: proxies, or the weights of a classifier."""

import jax
import jax.numpy as jnp

from triplet_jax import distances
from triplet_jax.engine import terms
from triplet_jax.engine.terms import Terms
from triplet_jax.mining import IsNegative, IsPositive, Number, ToNegatives, ToPositives


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
    straight = cosine - margin * jnp.sin(jnp.pi - margin)
    s_ap = jnp.where(cosine > jnp.cos(jnp.pi - margin), terms.turned(cosine, margin), straight)
    return terms.each_against_all(
        scale * s_ap, is_positive, scale * (1.0 - to_negatives), is_negative
    )


def cosface(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    margin: Number = 0.35,
    scale: Number = 64.0,
) -> Terms:
    """A softmax over class weights, with the cosine to the own class made smaller by `margin`.

        -log(e / (e + sum_n exp(scale s_an)))  with  e = exp(scale (s_ap - margin))

    Class weights are the `references`, with `metric="cosine"`. CosFace of Wang et al. 2018,
    https://arxiv.org/abs/1801.09414. With several centres for each class, whose similarities are
    averaged by a softmax (`class_centres.to_centres`), a scale of 20 and a margin of 0.01 it is
    the SoftTriple loss of Qian et al. 2019, https://arxiv.org/abs/1909.05235, without its term that
    merges centres.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.25]), jnp.array([0.5])
      >>> print(f"{contrastive.cosface(d_ap, one, d_an, one, margin=0.25).value[0]:.3f}")  # log 2
      0.693
    """
    s_ap, s_an = scale * (1.0 - to_positives - margin), scale * (1.0 - to_negatives)
    return terms.each_against_all(s_ap, is_positive, s_an, is_negative)


def sphereface(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    multiplier: Number = 4.0,
    scale: Number = 30.0,
) -> Terms:
    """A softmax over class weights, with the angle to the own class multiplied.

        -log(e / (e + sum_n exp(scale s_an)))  with  e = exp(scale psi(theta_y))
        psi(theta) = (-1)^k cos(multiplier theta) - 2k,  k = floor(multiplier theta / pi)

    psi goes on falling where the cosine would rise again. Class weights are the `references`, with
    `metric="cosine"`. SphereFace of Liu et al. 2017, https://arxiv.org/abs/1704.08063, has the
    length of the embedding in place of `scale`, and approaches its multiplier from a softmax; here
    a schedule of `multiplier`, which need not be whole, may start at 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), 1 - jnp.cos(jnp.array([0.5])), jnp.array([0.5])
      >>> found = contrastive.sphereface(d_ap, one, d_an, one, multiplier=2 * jnp.pi / 3)
      >>> print(f"{found.value[0]:.3f}")  # log 2: cos(pi / 3) is 0.5, as s_an is
      0.693
    """
    d_ap = jnp.clip(to_positives, 0.0, 2.0)
    # Unlike the arc cosine it keeps its digits where vectors are almost equal or opposite.
    half = jnp.arctan2(distances.safe_sqrt(d_ap), distances.safe_sqrt(2.0 - d_ap))
    angle = multiplier * 2.0 * half
    turns = jax.lax.stop_gradient(jnp.floor(angle / jnp.pi))
    s_ap = jnp.where(turns % 2 == 0, 1.0, -1.0) * jnp.cos(angle) - 2.0 * turns
    return terms.each_against_all(
        scale * s_ap, is_positive, scale * (1.0 - to_negatives), is_negative
    )


def p2s_grad(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
) -> Terms:
    """The squared distance of the cosines to class weights from 1 for the own and 0 for others.

        sum_p (1 - s_ap)^2 + sum_n s_an^2,  mean over anchors with positives

    It has no margin and no scale. Class weights are the `references`, with `metric="cosine"`. Zhang
    et al. 2019, https://arxiv.org/abs/1905.02479, define slopes in place of a loss; these are twice
    as large.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.5]), jnp.array([0.5])
      >>> print(contrastive.p2s_grad(d_ap, one, d_an, one).value)  # 0.25 twice
      [0.5]
    """
    near = jnp.sum(jnp.where(is_positive, to_positives**2, 0.0))
    far = jnp.sum(jnp.where(is_negative, (1.0 - to_negatives) ** 2, 0.0))
    has = jnp.any(is_positive)
    return terms.one(jnp.where(has, near + far, 0.0), has)
