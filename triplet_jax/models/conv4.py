"""Conv4, the small convolutional backbone of the few-shot literature."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.models import layers
from triplet_jax.models.layers import Conv


class Conv4(nn.Module):
    """Blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max pooling.

    The encoder of matching networks (Vinyals et al. 2016, https://arxiv.org/abs/1606.04080) and
    prototypical networks (Snell et al. 2017, https://arxiv.org/abs/1703.05175), with four blocks
    of 64 filters. Blocks stop pooling when an image has less than two rows or columns left.

    Args:
      width: filters of a block.
      depth: the number of blocks.
      norm: "batch" or "group".
      axis_name: the device axis over which batch statistics are averaged, or None.
      dtype: the type that is computed in; None for float32. Parameters, statistics of
        normalisation and the features stay float32.
    """

    width: int = 64
    depth: int = 4
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch features"]:
        norm = layers.make_norm(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        for _ in range(self.depth):
            x = Conv(self.width, (3, 3), dtype=self.dtype)(x)
            pool = layers.max_pool_2x2 if min(x.shape[1:3]) >= 2 else None
            x = nn.relu(norm()(x, pool))  # the same as pooling last, with a quarter of the values
        return x.reshape(x.shape[0], -1).astype(jnp.float32)
