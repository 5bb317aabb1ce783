"""Residual networks: ResNet-18 and ResNet-50."""

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from triplet_jax.models import layers
from triplet_jax.models.layers import Conv, Norm


class ResNet(nn.Module):
    """Residual network, version 1.5 (He et al. 2016, the stride on the 3 x 3 convolution).

    Images below 64 pixels keep their size in the first layers: a 3 x 3 stem without
    pooling, as is usual for CIFAR.
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
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1 with four times the channels, and a skip."""

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
        # A zero scale makes the block the identity at first (Goyal et al. 2017).
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = self.norm()(Conv(y.shape[-1], (1, 1), strides=stride)(x))
        return nn.relu(x + y)
