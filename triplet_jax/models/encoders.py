"""Encoders: a backbone from the literature, and an embedding head."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import distances, errors
from triplet_jax.models import layers, standardise
from triplet_jax.models.conv4 import Conv4
from triplet_jax.models.layers import NORMS
from triplet_jax.models.mlp import MLP
from triplet_jax.models.resnet import ResNet


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
            x = layers.drop(x, keys, self.dropout)
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
