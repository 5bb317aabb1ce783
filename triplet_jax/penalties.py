"""Penalties: what one triplet costs.

A penalty is a pure function of one triplet, applied to arrays of any shape:

    penalty(d_ap, d_an, margin) -> value

`d_ap` is the distance from the anchor to the positive and `d_an` the distance to the negative, both
in the units of the metric, as is the margin. The value has their shape. A penalty that names `d_pn`
by keyword is given the distance from the positive to the negative. All other keywords are knobs:
`functools.partial` sets them, and floats among them may be learned.

A penalty sees only triplets that a miner found, so an anchor without a positive or without a
negative never reaches it. `losses.triplet_loss` takes the mean, and counts a triplet as active
where its penalty is not 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.xla import extremes


def hinge(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`max(0, d_ap - d_an + margin)`: the negative has to be farther by the margin.

    Its gradient at the kink is 0. The large-margin loss of Weinberger and Saul 2009,
    https://jmlr.org/papers/v10/weinberger09a.html, and the loss of Schroff, Kalenichenko and
    Philbin 2015, https://arxiv.org/abs/1503.03832.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(penalties.hinge(jnp.float32(1.0), jnp.float32(1.5), margin=1.0))
      0.5
    """
    return jax.nn.relu(d_ap - d_an + margin)


def soft_margin(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`log(1 + exp(d_ap - d_an))`, a smooth hinge without a margin: `margin` is not used.

    It is finite for any distance and never 0. A collapsed embedding, whose distances are all equal,
    has the value log 2 = 0.693. Section 3 of Hermans, Beyer and Leibe 2017,
    https://arxiv.org/abs/1703.07737.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(f"{penalties.soft_margin(jnp.float32(1.0), jnp.float32(1.0), margin=0.0):.3f}")
      0.693
    """
    del margin
    return jax.nn.softplus(d_ap - d_an)


def squared_hinge(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`max(0, d_ap - d_an + margin)^2`: the gradient grows with the violation of the margin.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(penalties.squared_hinge(jnp.float32(1.0), jnp.float32(1.5), margin=1.0))
      0.25
    """
    return jnp.square(hinge(d_ap, d_an, margin))


def ratio(
    d_ap: Float[Array, "..."], d_an: Float[Array, "..."], margin: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """`(exp(d_ap) / (exp(d_ap) + exp(d_an)))^2`, in [0, 1]; `margin` is not used.

    Equal distances have the value 1/4. Hoffer and Ailon 2015, "Deep Metric Learning Using Triplet
    Network", https://arxiv.org/abs/1412.6622, whose loss is twice this.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(penalties.ratio(jnp.float32(1.0), jnp.float32(1.0), margin=0.0))
      0.25
    """
    del margin
    return jnp.square(jax.nn.sigmoid(d_ap - d_an))


def anchor_swap(
    d_ap: Float[Array, "..."],
    d_an: Float[Array, "..."],
    margin: Float[Array, ""] | float,
    *,
    d_pn: Float[Array, "..."],
) -> Float[Array, "..."]:
    """`max(0, d_ap - min(d_an, d_pn) + margin)`: both others push the negative away.

    `d_pn` is the distance from the positive to the negative, also where both are references.
    Section 3 of Balntas, Riba, Ponsa and Mikolajczyk 2016, "Learning Local Feature Descriptors with
    Triplets and Shallow Convolutional Neural Networks" (TFeat), https://doi.org/10.5244/C.30.119.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> d_ap, d_an, d_pn = jnp.float32(1.0), jnp.float32(1.5), jnp.float32(1.25)
      >>> print(penalties.anchor_swap(d_ap, d_an, margin=1.0, d_pn=d_pn))
      0.75
    """
    return hinge(d_ap, extremes.smaller(d_an, d_pn), margin)


def selectively_contrastive(
    d_ap: Float[Array, "..."],
    d_an: Float[Array, "..."],
    margin: Float[Array, ""] | float,
    *,
    temperature: Float[Array, ""] | float = 0.1,
    weight: Float[Array, ""] | float = 1.0,
    ceiling: Float[Array, ""] | float = 0.8,
) -> Float[Array, "..."]:
    """A hard triplet only pushes its negative away; an easy one is a softmax of two similarities.

        weight s_an                                  where s_an > s_ap or s_an > ceiling
        log(1 + exp((s_an - s_ap) / temperature))    elsewhere,  with s = 1 - d

    `margin` is not used. The value of a hard triplet may be negative, and jumps where the triplet
    turns easy. It needs `metric="cosine"`. SCT of Xuan, Stylianou, Liu and Pless 2020, "Hard
    Negative Examples are Hard, but Useful", https://arxiv.org/abs/2007.12749, who pick the nearest
    positives: `miner="easy_positive_hard"`.

    Example:
      The similarities are 0.5 and 0.75, so the triplet is hard.

      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(penalties.selectively_contrastive(jnp.float32(0.5), jnp.float32(0.25), margin=0.0))
      0.75
    """
    del margin
    s_ap, s_an = 1.0 - d_ap, 1.0 - d_an
    hard = (s_an > s_ap) | (s_an > ceiling)
    return jnp.where(hard, weight * s_an, jax.nn.softplus((s_an - s_ap) / temperature))


def margin_based(
    d_ap: Float[Array, "..."],
    d_an: Float[Array, "..."],
    margin: Float[Array, ""] | float,
    *,
    beta: Float[Array, ""] | float = 1.2,
) -> Float[Array, "..."]:
    """`max(0, d_ap - beta + margin) + max(0, beta - d_an + margin)`, with the boundary `beta`.

    Positives have to be nearer than the boundary and negatives beyond it, each by the margin. The
    gradient reaches beta, which may be learned. A triplet is active where one of the two terms is
    not 0; the paper counts pairs. Equation 5 of Wu, Manmatha, Smola and Krähenbühl 2017, "Sampling
    Matters in Deep Embedding Learning", https://arxiv.org/abs/1706.07567.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import penalties
      >>> print(penalties.margin_based(jnp.float32(1.0), jnp.float32(1.5), margin=0.5, beta=1.25))
      0.5
    """
    return jax.nn.relu(d_ap - beta + margin) + jax.nn.relu(beta - d_an + margin)


PENALTIES: dict[str, Callable] = {
    "anchor_swap": anchor_swap,
    "hinge": hinge,
    "margin_based": margin_based,
    "ratio": ratio,
    "selectively_contrastive": selectively_contrastive,
    "soft_margin": soft_margin,
    "squared_hinge": squared_hinge,
}
"""The penalties that `losses.triplet_loss` takes by name."""
