"""Residual networks: ResNet-18, ResNet-34 and ResNet-50."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import errors
from triplet_jax.models import layers, published
from triplet_jax.models.layers import Conv, Norm
from triplet_jax.models.published import Path, Stored
from triplet_jax.xla import convolution

# As products, wide 1 x 1 convolutions at 224 pixels would take too much memory.
_Conv = functools.partial(
    Conv, conv_general_dilated=functools.partial(convolution.convolve, products=False)
)
STEMS = ("7x7", "3x3", "by_size")
EXPECTS = published.IMAGENET._replace(resample="bilinear", crop_ratio=224 / 256)
"""How torchvision evaluates its first weights; later recipes crop less."""


class ResNet(nn.Module):
    """A residual network (He et al. 2016, https://arxiv.org/abs/1512.03385), pooled to a vector.

    Version 1.5: a bottleneck block has its stride on the 3 x 3 convolution.

    Args:
      stage_sizes: the number of blocks of each stage.
      bottleneck: the kind of block, see `ResidualBlock`.
      width: channels of the first stage; each further stage has twice as many.
      norm: "batch" or "group".
      axis_name: the device axis over which batch statistics are averaged, or None.
      stem: the first layer. "7x7" has a stride of 2 and is followed by pooling, as in published
        weights. "3x3" has neither, as is usual for CIFAR. "by_size" is "3x3" for images below 64
        pixels, and "7x7" for others.
      dtype: the type that is computed in; None for float32. Parameters, statistics of
        normalisation and the features stay float32.
      remat: whether the backward pass computes each block anew, which takes less memory.
      frozen: how many of the first `stages` use their running statistics in training, too.
      stochastic_depth: the probability that a row skips the last block in training. It rises
        evenly from 0 in the first block; see `layers.skip`.
      expects: what published weights expect of an image.
    """

    stage_sizes: Sequence[int]
    bottleneck: bool
    width: int = 64
    norm: str = "batch"
    axis_name: str | None = None
    stem: str = "by_size"
    dtype: Any = None
    remat: bool = False
    frozen: int = 0
    stochastic_depth: float = 0.0
    expects: published.Preprocessing = EXPECTS

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        train: bool,
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch features"]:
        """The features of a batch.

        Args:
          x: the images, normalised as `expects` says.
          train: whether normalisation uses the statistics of the batch.
          keys: a key for each row, by which it skips blocks; needed in training if rows do.

        Raises:
          InputError: the stem is not known, or `keys` is None where rows skip blocks.
        """
        errors.check_known("stem", self.stem, STEMS)
        norm_of = functools.partial(layers.norm_of_stage, self, train=train)
        norm = norm_of(0)
        if self.stem == "7x7" or (self.stem == "by_size" and min(x.shape[1:3]) >= 64):
            x = Conv(self.width, (7, 7), strides=2, padding=3, dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
            x = layers.max_pool_3x3(x)
        else:
            x = Conv(self.width, (3, 3), dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
        deepest = layers.rate_of_last(self.stochastic_depth, train, keys)
        blocks = sum(self.stage_sizes)
        for number, stage, block in self._blocks():
            x = (nn.remat(ResidualBlock) if self.remat else ResidualBlock)(
                width=self.width * 2**stage,
                stride=2 if stage > 0 and block == 0 else 1,
                bottleneck=self.bottleneck,
                norm=norm_of(1 + stage),
                dtype=self.dtype,
                number=number,
                skipped=layers.rate_of_block(deepest, number, blocks),
                name=f"ResidualBlock_{number}",
            )(x, keys)
        return x.astype(jnp.float32).mean(axis=(1, 2))

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The stages from the first to the last, each with the names of its parameters.

        They are the stem and the four layers of torchvision and timm.
        """
        norm = {"batch": "BatchNorm_0", "group": "GroupNorm_0"}[self.norm]
        found = {"stem": ["Conv_0", norm]}
        for number, stage, _ in self._blocks():
            found.setdefault(f"layer{stage + 1}", []).append(f"ResidualBlock_{number}")
        return {name: tuple(groups) for name, groups in found.items()}

    def layouts(self) -> tuple[published.Layout, ...]:
        """How weights are published: by the same names in torchvision and in timm.

        Raises:
          InputError: the backbone has no batch normalisation, which all published weights have.
        """
        if self.norm != "batch":
            raise errors.InputError(
                f"norm={self.norm!r} has no published weights: those of a ResNet are for batch"
                " normalisation. Set norm='batch'."
            )
        arrays = _layer(("Conv_0",), ("BatchNorm_0",), "conv1", "bn1")
        for number, stage, block in self._blocks():
            own, theirs = f"ResidualBlock_{number}", f"layer{stage + 1}.{block}"
            names = [(f"conv{i + 1}", f"bn{i + 1}") for i in range(3 if self.bottleneck else 2)]
            if block == 0 and (stage > 0 or self.bottleneck):
                names.append(("downsample.0", "downsample.1"))
            for i, (conv, norm) in enumerate(names):
                paths = (own, f"Conv_{i}"), (own, f"BatchNorm_{i}")
                arrays |= _layer(*paths, f"{theirs}.{conv}", f"{theirs}.{norm}")
        left_out = (r"fc\..*", r".*\.num_batches_tracked")
        return (published.Layout("torchvision and timm", arrays, left_out),)

    def _blocks(self) -> Iterator[tuple[int, int, int]]:
        """The number of each block, that of its stage, and its own within the stage."""
        number = 0
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                yield number, stage, block
                number += 1


def _layer(conv: Path, norm: Path, conv_name: str, norm_name: str) -> dict[Path, Stored]:
    """Where a convolution and the normalisation after it are published."""
    return published.kernel(conv, conv_name) | published.batch_norm(norm, norm_name)


class ResidualBlock(nn.Module):
    """Adds its input to two 3 x 3 convolutions, or to a bottleneck of three.

    Args:
      width: channels of the 3 x 3 convolutions.
      stride: of the block's first 3 x 3 convolution, and of the skip connection.
      bottleneck: whether the convolutions are 1 x 1, 3 x 3 and 1 x 1, the last of which has four
        times `width` channels.
      norm: makes a normalisation layer; see `layers.make_norm`.
      dtype: the type that is computed in; None for float32.
      number: of the block in the network, by which it draws the rows that skip it.
      skipped: the probability that a row skips the convolutions.
    """

    width: int
    stride: int
    bottleneck: bool
    norm: Norm
    dtype: Any = None
    number: int = 0
    skipped: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch new_height new_width new_channels"]:
        def conv(width, size, stride=1):
            return _Conv(width, (size, size), strides=stride, padding=size // 2, dtype=self.dtype)

        stride = self.stride
        y = x
        if self.bottleneck:
            y = nn.relu(self.norm()(conv(self.width, 1)(y)))
            y = nn.relu(self.norm()(conv(self.width, 3, stride)(y)))
            y = conv(4 * self.width, 1)(y)
        else:
            y = nn.relu(self.norm()(conv(self.width, 3, stride)(y)))
            y = conv(self.width, 3)(y)
        # A zero scale makes the block start as the identity (Goyal et al. 2017).
        y = self.norm(scale_init=nn.initializers.zeros)(y)
        y = layers.skip(y, keys, self.skipped, block=self.number)
        if x.shape != y.shape:
            x = self.norm()(conv(y.shape[-1], 1, stride)(x))
        return nn.relu(x + y)
