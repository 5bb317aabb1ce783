"""Losses that pull each positive and push each negative by its own distance."""

import jax
import jax.numpy as jnp

from triplet_jax.engine import terms
from triplet_jax.engine.terms import Terms
from triplet_jax.mining import IsNegative, IsPositive, Number, ToNegatives, ToPositives


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


def sigmoid(
    to_positives: ToPositives,
    is_positive: IsPositive,
    to_negatives: ToNegatives,
    is_negative: IsNegative,
    *,
    scale: Number = 10.0,
    bias: Number = -10.0,
) -> Terms:
    """Tells by each pair alone whether it is positive, as a logistic regression does.

        sum_p log(1 + exp(-(scale s_ap + bias))) + sum_n log(1 + exp(scale s_an + bias)),
        mean over anchors, also those without positives

    The loss of SigLIP (Zhai, Mustafa, Kolesnikov and Beyer 2023, https://arxiv.org/abs/2303.15343)
    learns both numbers, starting from these values. The bias makes up for positives being few: at
    first each negative costs little.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import contrastive
      >>> one, d_ap, d_an = jnp.array([True]), jnp.array([0.0]), jnp.array([0.5])
      >>> print(f"{contrastive.sigmoid(d_ap, one, d_an, one, bias=-5.0).value[0]:.3f}")
      0.700
    """
    near = jax.nn.softplus(-(scale * (1.0 - to_positives) + bias))
    far = jax.nn.softplus(scale * (1.0 - to_negatives) + bias)
    near, far = jnp.where(is_positive, near, 0.0), jnp.where(is_negative, far, 0.0)
    return terms.one(jnp.sum(near) + jnp.sum(far), jnp.float32(1))
