"""Residual networks: ResNet-18 and ResNet-50."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from triplet_jax.models import layers
from triplet_jax.models.layers import Conv, Norm


class ResNet(nn.Module):
    """A residual network (He et al. 2016, https://arxiv.org/abs/1512.03385), pooled to a vector.

    Version 1.5: a bottleneck block has its stride on the 3 x 3 convolution. Images below 64 pixels
    go through a 3 x 3 stem without stride and pooling, as is usual for CIFAR.

    Args:
      stage_sizes: the number of blocks of each stage.
      bottleneck: the kind of block, see `ResidualBlock`.
      width: channels of the first stage; each further stage has twice as many.
      norm: "batch" or "group".
      axis_name: the device axis over which batch statistics are averaged, or None.
    """

    stage_sizes: Sequence[int]
    bottleneck: bool
    width: int = 64
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch features"]:
        norm = layers.make_norm(self.norm, train=train, axis_name=self.axis_name)
        if min(x.shape[1:3]) >= 64:
            x = Conv(self.width, (7, 7), strides=2, padding=3)(x)
            x = nn.relu(norm()(x))
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        else:
            x = Conv(self.width, (3, 3))(x)
            x = nn.relu(norm()(x))
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = ResidualBlock(
                    width=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    norm=norm,
                )(x)
        return x.mean(axis=(1, 2))


class ResidualBlock(nn.Module):
    """Adds its input to two 3 x 3 convolutions, or to a bottleneck of three.

    Args:
      width: channels of the 3 x 3 convolutions.
      stride: of the block's first 3 x 3 convolution, and of the skip connection.
      bottleneck: whether the convolutions are 1 x 1, 3 x 3 and 1 x 1, the last of which has four
        times `width` channels.
      norm: makes a normalisation layer; see `layers.make_norm`.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: Norm

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch new_height new_width new_channels"]:
        stride = self.stride
        y = x
        if self.bottleneck:
            y = nn.relu(self.norm()(Conv(self.width, (1, 1))(y)))
            y = nn.relu(self.norm()(Conv(self.width, (3, 3), strides=stride, padding=1)(y)))
            y = Conv(4 * self.width, (1, 1))(y)
        else:
            y = nn.relu(self.norm()(Conv(self.width, (3, 3), strides=stride, padding=1)(y)))
            y = Conv(self.width, (3, 3))(y)
        # A zero scale makes the block start as the identity (Goyal et al. 2017).
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = self.norm()(Conv(y.shape[-1], (1, 1), strides=stride)(x))
        return nn.relu(x + y)
