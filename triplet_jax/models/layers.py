"""Layers that the backbones share: convolution, normalisation, pooling, dropout."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from triplet_jax import errors
from triplet_jax.models import batch_norm
from triplet_jax.xla import convolution, extremes, pooling

Norm = Callable[..., nn.Module]
NORMS = ("batch", "group")
Conv = functools.partial(nn.Conv, use_bias=False, conv_general_dilated=convolution.convolve)


def make_norm(
    kind: str,
    *,
    train: bool,
    axis_name: str | None,
    epsilon: float = 1e-5,
    dtype: Any = None,
) -> Norm:
    """A constructor of normalisation layers; each call makes one layer.

    Statistics are computed and kept in float32, whatever the type of the inputs.

    Args:
      kind: "batch", whose statistics in training are those of the batch on all devices, or
        "group", which mixes no examples.
      train: whether batch statistics come from the batch, or from their running average.
      axis_name: the device axis over which batch statistics are averaged, or None.
      epsilon: what is added to a variance.
      dtype: the type of the outputs; None for that of the inputs and the parameters together.
    """
    if kind == "group":
        return functools.partial(GroupNorm, epsilon=epsilon, dtype=dtype)
    return functools.partial(
        batch_norm.BatchNorm,
        use_running_average=not train,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis_name if train else None,
    )


def norm_of_stage(backbone: Any, stage: int, *, train: bool, epsilon: float = 1e-5) -> Norm:
    """A constructor of the normalisation layers of a stage, which trains unless it is frozen.

    Args:
      backbone: a module with the attributes `norm`, `axis_name`, `frozen` and `dtype`.
      stage: the number of the stage, from 0.
      train: whether batch statistics come from the batch in stages that are not frozen.
      epsilon: what is added to a variance.
    """
    return make_norm(
        backbone.norm,
        train=train and stage >= backbone.frozen,
        axis_name=backbone.axis_name,
        epsilon=epsilon,
        dtype=backbone.dtype,
    )


class GroupNorm(nn.Module):
    """Group normalisation in at most 32 groups of at least 4 channels each.

    Wu and He 2018, https://arxiv.org/abs/1803.08494. In a layer without height and width, a group
    of one channel would become 0.
    """

    scale_init: Callable = nn.initializers.ones
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch ..."], pool: Callable | None = None
    ) -> Float[Array, "batch ..."]:
        channels = x.shape[-1]
        most = max(1, min(32, channels // 4))
        groups = max(g for g in range(1, most + 1) if channels % g == 0)
        y = nn.GroupNorm(
            num_groups=groups,
            epsilon=self.epsilon,
            dtype=self.dtype,
            scale_init=self.scale_init,
            use_fast_variance=False,
        )(x)
        return y if pool is None else pool(y)


def max_pool_2x2(
    x: Float[Array, "batch height width channels"],
    lowest: Bool[Array, "..."] | bool = False,
) -> Float[Array, "batch half_height half_width channels"]:
    """The maximum over 2 x 2 windows; an odd last row or column is dropped.

    Args:
      x: the images.
      lowest: the channels of which the minimum is taken instead.
    """
    height, width = (size // 2 * 2 for size in x.shape[1:3])
    return pooling.max_2x2(x[:, :height, :width], lowest)


def max_pool_3x3(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch half_height half_width channels"]:
    """The maximum over 3 x 3 windows at every second row and column, with a border of one.

    On a CPU it compares rows, and then columns, as `max_pool_2x2` does. With its gradient it takes
    a quarter of the time of XLA's window reduction, which is a fifteenth of a step of ResNet-18.
    """
    # Padded here: converters support no explicit padding in flax's pooling.
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    if jax.default_backend() != "cpu":
        return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))
    rows = [x[:, i : x.shape[1] - 2 + i : 2] for i in range(3)]
    x = functools.reduce(extremes.larger, rows)
    columns = [x[:, :, i : x.shape[2] - 2 + i : 2] for i in range(3)]
    return functools.reduce(extremes.larger, columns)


def drop(
    x: Float[Array, "batch features"], keys: Key[Array, "batch"], rate: float
) -> Float[Array, "batch features"]:
    """Dropout in which every row has its own key, so that it does not depend on its neighbours.

    A value becomes 0 with probability `rate`, and is divided by `1 - rate` otherwise, which keeps
    its mean (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).
    """
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), 0.0)


def rate_of_last(rate: float, train: bool, keys: Key[Array, "batch"] | None) -> float:
    """The probability that a row skips the last block: `rate`, or 0 in evaluation.

    Rows that are given keys skip blocks by them even where `train` is False: normalisation may be
    that of evaluation in training, too.
    """
    return rate if train or keys is not None else 0.0


def rate_of_block(deepest: float, number: int, blocks: int) -> float:
    """The probability that a row skips a block: from 0 in the first, evenly, to `deepest`.

    >>> [rate_of_block(0.2, number, 3) for number in range(3)]
    [0.0, 0.1, 0.2]
    """
    return deepest * number / max(1, blocks - 1)


def skip(
    x: Float[Array, "batch ..."], keys: Key[Array, "batch"] | None, rate: float, *, block: int
) -> Float[Array, "batch ..."]:
    """Stochastic depth: a row of a block's residual branch is skipped with probability `rate`.

    Huang et al. 2016, https://arxiv.org/abs/1603.09382. A row that is kept is divided by
    `1 - rate`, which keeps its mean. Every row has its own key, so that the same rows are skipped
    on any number of devices.

    >>> keys = jax.random.split(jax.random.key(0), 4)
    >>> print(skip(jnp.ones((4, 2)), keys, 0.5, block=1)[:, 0])
    [2. 2. 0. 0.]

    Args:
      x: the output of the branch.
      keys: a key for each row, the same for all blocks.
      rate: the probability; 0 changes nothing and needs no keys.
      block: the number of the block, so that each draws by itself.

    Raises:
      InputError: `keys` is None, and `rate` is above 0.
    """
    if not rate:
        return x
    if keys is None:
        raise errors.InputError(
            f"keys=None, but stochastic depth of rate={rate} draws for every row: pass one key for"
            " each row."
        )
    kept = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, block), 1.0 - rate))(keys)
    kept = kept.reshape(-1, *[1] * (x.ndim - 1))
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
