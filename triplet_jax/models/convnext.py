"""ConvNeXt and ConvNeXt V2."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from triplet_jax import errors
from triplet_jax.models import layers, published
from triplet_jax.models.published import (
    CONV,
    DENSE,
    Form,
    Layout,
    Stored,
    kernel_and_bias,
    scale_and_bias,
)

Conv = functools.partial(layers.Conv, use_bias=True)
# The activation is the exact one of torch, by the error function.
gelu = functools.partial(nn.gelu, approximate=False)


class ConvNeXt(nn.Module):
    """ConvNeXt (Liu et al. 2022, https://arxiv.org/abs/2201.03545), pooled to a vector.

    A block convolves each channel alone by 7 x 7, normalises, and has an MLP of four times the
    width, whose output a learned factor of each channel scales before the input is added. V2 (Woo
    et al. 2023, https://arxiv.org/abs/2301.00808) has `ResponseNorm` inside the MLP in place of
    that factor. The features are the normalised means over the image.

    >>> import jax
    >>> tiny = ConvNeXt(depths=(1, 1), widths=(8, 16))
    >>> def embed(x):
    ...     return tiny.init_with_output(jax.random.key(0), x, False)
    >>> features, variables = jax.eval_shape(embed, jnp.zeros((5, 32, 32, 3)))
    >>> features.shape
    (5, 16)

    Args:
      depths: the number of blocks of each stage.
      widths: channels of each stage.
      version: 1 or 2.
      convolved: whether timm publishes the linear maps of the MLP as 1 x 1 convolutions, as it does
        for small sizes. Either is read; this decides what is written.
      dtype: the type that is computed in; None for float32. Parameters, statistics of
        normalisation and the features stay float32.
      remat: whether the backward pass computes each block anew, which takes less memory.
      frozen: how many of the first `stages` are frozen. Layer normalisation has no running
        statistics, so it changes nothing here; `stages` says whose gradients are stopped.
      stochastic_depth: the probability that a row skips the last block in training. It rises
        evenly from 0 in the first block; see `layers.skip`.
      expects: what published weights expect of an image.
    """

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    version: int = 1
    convolved: bool = False
    dtype: Any = None
    remat: bool = False
    frozen: int = 0
    stochastic_depth: float = 0.0
    expects: published.Preprocessing = published.IMAGENET._replace(crop_ratio=0.875)

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
          train: whether `keys` are needed, if rows skip blocks.
          keys: a key for each row, by which it skips blocks.

        Raises:
          InputError: the images are too small, or `keys` is None where rows skip blocks.
        """
        self.check_size(x.shape[1:3])
        conv = functools.partial(Conv, padding="VALID", dtype=self.dtype)
        norm = functools.partial(_layer_norm, dtype=self.dtype)
        x = conv(self.widths[0], (4, 4), strides=4, name="stem")(x)
        x = norm(name="stem_norm")(x)
        deepest = layers.rate_of_last(self.stochastic_depth, train, keys)
        blocks = list(self._blocks())
        for number, (stage, block) in enumerate(blocks):
            if stage > 0 and block == 0:
                x = norm(name=f"downsample_{stage}_norm")(x)
                width = self.widths[stage]
                x = conv(width, (2, 2), strides=2, name=f"downsample_{stage}")(x)
            x = (nn.remat(Block) if self.remat else Block)(
                version=self.version,
                dtype=self.dtype,
                number=number,
                skipped=layers.rate_of_block(deepest, number, len(blocks)),
                name=f"blocks_{stage}_{block}",
            )(x, keys)
        means = x.astype(jnp.float32).mean(axis=(1, 2))
        return _layer_norm(name="head_norm")(means)

    def check_size(self, size: tuple[int, ...]) -> None:
        """Refuses images of so many rows and columns, if nothing of them is left in the last stage.

        Raises:
          InputError: they are too small; the message has the smallest size.
        """
        least = 4 * 2 ** (len(self.depths) - 1)
        if min(size) < least:
            raise errors.InputError(
                f"images of {size[0]} x {size[1]} are too small for a ConvNeXt of"
                f" {len(self.depths)} stages. The smallest size is {least} x {least}."
            )

    def stages(self) -> dict[str, tuple[str, ...]]:
        """The stages from the first to the last, each with the names of its parameters.

        They are the stem, timm's stages of blocks, and the last normalisation.
        """
        found: dict[str, tuple[str, ...]] = {"stem": ("stem", "stem_norm")}
        for stage, block in self._blocks():
            name = f"stages.{stage}"
            if stage > 0 and block == 0:
                found[name] = (f"downsample_{stage}", f"downsample_{stage}_norm")
            found[name] = (*found.get(name, ()), f"blocks_{stage}_{block}")
        return found | {"head": ("head_norm",)}

    def layouts(self) -> tuple[Layout, ...]:
        """How weights are published: by timm, and V1 by torchvision, too."""
        names = _TIMM | {"linear": _CONVOLVED if self.convolved else _LINEAR}
        found = [self._layout("timm", names, (r"head\.fc\..*",))]
        if self.version == 1:
            names = _TORCHVISION | {
                # Stages and the convolutions before them take turns.
                "block": lambda stage, block: f"features.{2 * stage + 1}.{block}",
                "downsample": lambda stage: f"features.{2 * stage}",
            }
            found.append(self._layout("torchvision", names, (r"classifier\.2\..*",)))
        return tuple(found)

    def _layout(self, name: str, names: dict[str, Any], left_out: tuple[str, ...]) -> Layout:
        arrays = kernel_and_bias(("stem",), names["stem"], CONV)
        arrays |= scale_and_bias(("stem_norm",), names["stem_norm"])
        for stage in range(1, len(self.depths)):
            theirs = names["downsample"](stage)
            arrays |= scale_and_bias((f"downsample_{stage}_norm",), f"{theirs}.0")
            arrays |= kernel_and_bias((f"downsample_{stage}",), f"{theirs}.1", CONV)
        for stage, block in self._blocks():
            ours, theirs = f"blocks_{stage}_{block}", names["block"](stage, block)
            arrays |= kernel_and_bias((ours, "conv_dw"), f"{theirs}.{names['conv_dw']}", CONV)
            arrays |= scale_and_bias((ours, "norm"), f"{theirs}.{names['norm']}")
            for layer in ("fc1", "fc2"):
                their_layer = f"{theirs}.{names[layer]}"
                arrays |= kernel_and_bias((ours, layer), their_layer, names["linear"])
            if self.version == 1:
                scale = Stored(f"{theirs}.{names['gamma']}", names["gamma_form"])
                arrays[("params", ours, "gamma")] = scale
            else:
                arrays |= scale_and_bias((ours, "grn"), f"{theirs}.mlp.grn")
        arrays |= scale_and_bias(("head_norm",), names["head_norm"])
        return Layout(name, arrays, left_out)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """The number of each block's stage, and its own within the stage."""
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                yield stage, block


class Block(nn.Module):
    """A block of ConvNeXt.

    Args:
      version: 1 or 2.
      dtype: the type that is computed in; None for float32.
      number: of the block in the network, by which it draws the rows that skip it.
      skipped: the probability that a row skips the block.
    """

    version: int
    dtype: Any = None
    number: int = 0
    skipped: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch height width channels"]:
        width = x.shape[-1]
        of_type = {"dtype": self.dtype}
        conv = Conv(width, (7, 7), padding=3, feature_group_count=width, **of_type, name="conv_dw")
        y = _layer_norm(**of_type, name="norm")(conv(x))
        y = gelu(self._dense(4 * width, "fc1")(y))
        if self.version == 2:
            y = ResponseNorm(name="grn")(y)
        y = self._dense(width, "fc2")(y)
        if self.version == 1:
            gamma = self.param("gamma", nn.initializers.constant(1e-6), (width,))
            y = y * gamma.astype(y.dtype)
        return x + layers.skip(y, keys, self.skipped, block=self.number)

    def _dense(self, width: int, name: str) -> Callable[[Array], Array]:
        """A linear layer by rows of a matrix; with more axes, its gradient copies a transpose."""
        dense = nn.Dense(width, dtype=self.dtype, name=name)
        return lambda y: dense(y.reshape(-1, y.shape[-1])).reshape(*y.shape[:-1], width)


class ResponseNorm(nn.Module):
    r"""Global response normalisation of ConvNeXt V2, https://arxiv.org/abs/2301.00808.

    $$g_c = \|x_c\|_2, \qquad y_c = x_c + \gamma_c\, x_c\, g_c / (\bar g + \epsilon) + \beta_c,$$

    where the norm of a channel is over the image, and the mean of g is over the channels.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        squares = jnp.square(x.astype(jnp.float32)).sum(axis=(1, 2), keepdims=True)
        # The root of 0 has no gradient.
        some = squares > 0
        norms = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)
        relative = norms / (norms.mean(axis=-1, keepdims=True) + self.epsilon)
        return x * (1 + scale * relative).astype(x.dtype) + bias.astype(x.dtype)


def _layer_norm(**rest: Any) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, use_fast_variance=False, **rest)


def _from_matrix(x: np.ndarray) -> np.ndarray:
    """Our matrix from one of a linear layer, or of a 1 x 1 convolution."""
    return (x[:, :, 0, 0] if x.ndim == 4 and x.shape[2:] == (1, 1) else x).T


_LINEAR = Form(_from_matrix, DENSE.published)
_CONVOLVED = Form(_from_matrix, lambda x: DENSE.published(x)[:, :, None, None])
_COLUMN = Form(lambda x: x.reshape(-1), lambda x: x[:, None, None])
"""A vector that is published as [channels, 1, 1]."""
_TIMM = {
    "stem": "stem.0",
    "stem_norm": "stem.1",
    "downsample": lambda stage: f"stages.{stage}.downsample",
    "block": lambda stage, block: f"stages.{stage}.blocks.{block}",
    "conv_dw": "conv_dw",
    "norm": "norm",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
    "gamma": "gamma",
    "gamma_form": published.AS_IS,
    "head_norm": "head.norm",
}
_TORCHVISION = {
    "stem": "features.0.0",
    "stem_norm": "features.0.1",
    "conv_dw": "block.0",
    "norm": "block.2",
    "fc1": "block.3",
    "fc2": "block.5",
    "linear": _LINEAR,
    "gamma": "layer_scale",
    "gamma_form": _COLUMN,
    "head_norm": "classifier.0",
}


_DEEP = (3, 3, 27, 3)
_SIZES: dict[str, tuple[tuple[int, ...], int]] = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": (_DEEP, 96),
    "base": (_DEEP, 128),
    "large": (_DEEP, 192),
}


def _sizes() -> dict[str, functools.partial]:
    found = {}
    for version, prefix in ((1, "convnext"), (2, "convnextv2")):
        for name, (depths, width) in _SIZES.items():
            if version == 2 and name == "small":
                continue  # it was not published
            widths = tuple(width * 2**stage for stage in range(4))
            found[f"{prefix}_{name}"] = functools.partial(
                ConvNeXt, depths=depths, widths=widths, version=version, convolved=width <= 80
            )
    return found


CONVNEXTS = _sizes()
"""ConvNeXts by name, as timm has them."""
