"""Encoders: a backbone from the literature, and an embedding head."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import convolution, distances, errors, extremes, standardise

Norm = Callable[..., nn.Module]
NORMS = ("batch", "group")
Conv = functools.partial(nn.Conv, use_bias=False, conv_general_dilated=convolution.convolve)


def make_norm(kind: str, *, train: bool, axis_name: str | None) -> Norm:
    """The normalisation layer, to be called once for every place it is used.

    Args:
      kind: "batch", whose statistics in training are those of the batches of all devices,
        or "group", which mixes no examples.
      train: whether statistics come from the batch or from their running average.
      axis_name: the device axis over which batch statistics are averaged, or None.
    """
    if kind == "group":
        return GroupNorm
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_fast_variance=False,  # the mean square less the squared mean cancels
        axis_name=axis_name if train else None,
    )


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018): at most 32 groups, of at least 4 channels each.

    A group of one channel would leave nothing of a layer without height and width.
    """

    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        channels = x.shape[-1]
        most = max(1, min(32, channels // 4))
        groups = max(g for g in range(1, most + 1) if channels % g == 0)
        return nn.GroupNorm(num_groups=groups, scale_init=self.scale_init, use_fast_variance=False)(
            x
        )


def max_pool_2x2(
    x: Float[Array, "batch height width channels"],
) -> Float[Array, "batch half_height half_width channels"]:
    """Maximum over 2 x 2 windows; an odd last row or column is dropped.

    By pairs of rows, then of columns: the gradient of XLA's window reduction is slow on a CPU, and
    that of a maximum over reshaped axes is wrong after a fused normalisation: see `extremes`.
    """
    height, width = (size // 2 * 2 for size in x.shape[1:3])
    rows = extremes.larger(x[:, 0:height:2, :width], x[:, 1:height:2, :width])
    return extremes.larger(rows[:, :, 0::2], rows[:, :, 1::2])


class MLP(nn.Module):
    """Dense layers with ReLU on the flattened input."""

    width: int = 256
    depth: int = 2
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], train: bool) -> Float[Array, "batch features"]:
        norm = make_norm(self.norm, train=train, axis_name=self.axis_name)
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = nn.Dense(self.width, use_bias=False)(x)
            x = nn.relu(norm()(x))
        return x


class Conv4(nn.Module):
    """Four blocks of 3 x 3 convolution, normalisation, ReLU and 2 x 2 max pooling.

    The encoder of the few-shot literature (Vinyals et al. 2016; Snell et al. 2017), who
    use 64 filters. `depth` blocks; pooling stops where an image has no two rows left.
    """

    width: int = 64
    depth: int = 4
    norm: str = "batch"
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], train: bool
    ) -> Float[Array, "batch features"]:
        norm = make_norm(self.norm, train=train, axis_name=self.axis_name)
        for _ in range(self.depth):
            x = Conv(self.width, (3, 3))(x)
            x = nn.relu(norm()(x))
            if min(x.shape[1:3]) >= 2:
                x = max_pool_2x2(x)
        return x.reshape(x.shape[0], -1)


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
        norm = make_norm(self.norm, train=train, axis_name=self.axis_name)
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


def drop(
    x: Float[Array, "batch features"], keys: Key[Array, "batch"], rate: float
) -> Float[Array, "batch features"]:
    """Dropout (Srivastava et al. 2014), in which every row draws with a key of its own.

    A value is 0 with probability `rate`, else divided by `1 - rate`, so that its mean stays. What a
    row loses does not depend on the rows beside it.
    """
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), 0.0)


class Projection(nn.Module):
    """Two dense layers with a ReLU between them, the head of SimCLR.

    Chen et al. 2020, section 4.2: the loss sees what the head gives, and the layer before it, which
    keeps more of the image, is used afterwards.
    """

    width: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch dim"]:
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.dim)(x)


class Encoder(nn.Module):
    """A backbone, a linear map to `dim` values, and optionally the unit sphere.

    `encoder.apply(variables, inputs, train=False)` gives embeddings `[batch, dim]`. With
    `train=True` it gives what a loss sees: `[batch, projection_dim]` where there is a projection
    head, of `projection` hidden units. With `dropout` that needs a key for each row. `project`
    says whether to go through the head, if not as `train` does. With `standardised` the inputs are
    features that are brought to mean 0 and deviation 1, by statistics that `standardise.put` sets.
    """

    backbone: nn.Module
    dim: int
    normalize: bool
    dropout: float = 0.0
    projection: int = 0
    projection_dim: int = 64
    standardised: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch ..."],
        train: bool = False,
        keys: Key[Array, "batch"] | None = None,
        project: bool | None = None,
    ) -> Float[Array, "batch values"]:
        if self.standardised:
            x = standardise.Standardise(name=standardise.LAYER)(x)
        x = self.backbone(x, train)
        if train and self.dropout:
            if keys is None:
                raise errors.InputError(
                    f"keys=None, but dropout={self.dropout} draws for every row: pass a key for"
                    " each."
                )
            x = drop(x, keys, self.dropout)
        x = nn.Dense(self.dim)(x)
        project = train if project is None else project
        if self.projection and (project or self.is_initializing()):
            projected = Projection(self.projection, self.projection_dim)(x)
            x = projected if project else x
        return distances.unit(x) if self.normalize else x


class TwoTowers(nn.Module):
    """Two encoders into one space, for rows that come in pairs, as in CLIP (Radford et al. 2021).

    In training the encoders take turns: the first embeds rows 0, 2, 4 and so on, the second the
    others. In evaluation a row of `data.pairs` goes through the encoder of the array that it is
    from, and an ordinary input through the first.

    Args:
      first: an encoder.
      second: another, with embeddings of the same size.
      shapes: of an input of each, where rows are those of `data.pairs`; None for ordinary inputs.
    """

    first: Encoder
    second: Encoder
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def __call__(
        self,
        x: Float[Array, "rows ..."],
        train: bool = False,
        keys: Key[Array, "rows"] | None = None,
    ) -> Float[Array, "rows values"]:
        towers = (self.first, self.second)
        if train:
            keys_of = [None if keys is None else keys[i::2] for i in range(2)]
            turns = [
                tower(self._of(i, x[i::2]), train, keys_of[i]) for i, tower in enumerate(towers)
            ]
            return jnp.stack(turns, axis=1).reshape(x.shape[0], -1)
        first, second = (tower(self._of(i, x), train) for i, tower in enumerate(towers))
        # Ordinary inputs need the first alone; a compiler leaves the other out.
        return first if self.shapes is None else jnp.where(x[:, -1:] == 0, first, second)

    def _of(self, tower, x):
        """Rows as one of the encoders takes them."""
        if self.shapes is None:
            return x
        shape = self.shapes[tower]
        return x[:, : math.prod(shape)].reshape(x.shape[0], *shape)


def prefix(
    embeddings: Float[Array, "batch dim"], dim: int, *, normalize: bool
) -> Float[Array, "batch short"]:
    """The first `dim` values of embeddings as embeddings of their own.

    Args:
      embeddings: from an encoder.
      dim: how many values are kept.
      normalize: whether what is left is brought to length 1 again, as the encoder does.
    """
    short = embeddings[:, :dim]
    return distances.unit(short) if normalize else short


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "conv4": Conv4,
    "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "resnet50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
}


def encoder(
    name: str | Callable[..., nn.Module],
    *,
    dim: int,
    normalize: bool = True,
    norm: str = "batch",
    dropout: float = 0.0,
    projection: int = 0,
    projection_dim: int = 64,
    standardised: bool = False,
    axis_name: str | None = None,
    **params,
) -> Encoder:
    """An encoder by the name of its backbone.

    Args:
      name: a name in `BACKBONES`, or a function as those in it are.
      dim: the size of the embedding.
      normalize: whether embeddings have unit length. A zero vector stays zero.
      norm: "batch" or "group".
      dropout: the share of the backbone's features that are dropped in training.
      projection: hidden units of a head that only the loss sees; 0 for none.
      projection_dim: what that head gives.
      standardised: whether inputs are features that the encoder brings to mean 0 and deviation 1
        first, as `standardise` says.
      axis_name: the device axis over which batch statistics are averaged, or None.
      **params: parameters of the backbone, such as `width`.

    Raises:
      InputError: the backbone or the norm is not known.
    """
    if not callable(name):
        errors.check_known("name", name, BACKBONES)
    errors.check_known("norm", norm, NORMS)
    make = name if callable(name) else BACKBONES[name]
    backbone = make(norm=norm, axis_name=axis_name, **params)
    return Encoder(
        backbone=backbone,
        dim=dim,
        normalize=normalize,
        dropout=dropout,
        projection=projection,
        projection_dim=projection_dim,
        standardised=standardised,
    )
