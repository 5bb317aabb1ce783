"""Losses of a batch against a vector for each class: proxies, or the weights of a classifier."""

import jax.numpy as jnp

from triplet_jax.engine import terms
from triplet_jax.engine.terms import Number, Terms
from triplet_jax.mining import IsNegative, IsPositive, ToNegatives, ToPositives


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
