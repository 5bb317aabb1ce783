"""Encoders: a backbone with an embedding head, a projection head, and two towers."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from triplet_jax import distances, errors
from triplet_jax.models import layers, pixels, published, stages, standardise
from triplet_jax.models.conv4 import Conv4
from triplet_jax.models.convnext import CONVNEXTS
from triplet_jax.models.efficientnet import EFFICIENTNETS
from triplet_jax.models.layers import NORMS
from triplet_jax.models.mlp import MLP
from triplet_jax.models.resnet import ResNet
from triplet_jax.models.vit_sizes import VITS

HEAD = "Dense_0"
"""The name of an encoder's embedding head among its parameters."""


class Projection(nn.Module):
    """The projection head of SimCLR: two dense layers with a ReLU between them.

    Chen et al. 2020, section 4.2, https://arxiv.org/abs/2002.05709: only the loss sees the output
    of the head. The layer before it keeps more of the image, and is the embedding.

    Args:
      width: hidden units.
      dim: values of the output.
    """

    width: int
    dim: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch dim"]:
        x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.dim)(x)


class Encoder(nn.Module):
    """A backbone and an embedding head: a linear map to `dim` values, scaled to unit length.

    `encoder.apply(variables, inputs)` gives embeddings `[batch, dim]`. With `train=True` it gives
    what a loss sees: the output `[batch, projection_dim]` of the projection head, if there is one.

    Args:
      backbone: a module of inputs and `train`, with features `[batch, features]`.
      dim: values of an embedding.
      normalize: whether embeddings have unit length; a zero vector stays zero.
      dropout: the share of the backbone's features that is dropped in training.
      projection: hidden units of the projection head; 0 for no head.
      projection_dim: values of its output.
      standardised: whether the inputs are features that the first layer standardises;
        `standardise.put` sets its statistics.
      statistics: what images are normalised by first, as published weights expect it; None for
        values as they are. Grey images become images of as many channels as it has.
      frozen: whether the backbone is frozen: in training, too, it then embeds as in evaluation,
        and `stages.stop_frozen` stops its gradients.
      fixed_statistics: whether the backbone's batch normalisation uses its running statistics in
        training, too, and leaves them as they are.
    """

    backbone: nn.Module
    dim: int
    normalize: bool = True
    dropout: float = 0.0
    projection: int = 0
    projection_dim: int = 64
    standardised: bool = False
    statistics: published.Preprocessing | None = None
    frozen: bool = False
    fixed_statistics: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch ..."],
        train: bool = False,
        keys: Key[Array, "batch"] | None = None,
        project: bool | None = None,
        from_features: bool = False,
    ) -> Float[Array, "batch values"]:
        """Embeds a batch.

        Args:
          x: the inputs.
          train: whether this is a training step.
          keys: a key for each row; needed for dropout in training.
          project: whether the output is that of the projection head; None does as `train`.
          from_features: whether `x` holds the backbone's features, so that only the head is left.

        Raises:
          InputError: `keys` is None, and there is dropout or stochastic depth in training.
        """
        if not from_features:
            x = self.features(x, train, keys)
        if train and self.dropout:
            x = layers.drop(x, _needed(keys, f"dropout={self.dropout}"), self.dropout)
        x = nn.Dense(self.dim, name=HEAD)(x)
        project = train if project is None else project
        if self.projection and (project or self.is_initializing()):
            projected = Projection(self.projection, self.projection_dim)(x)
            x = projected if project else x
        return distances.unit(x) if self.normalize else x

    def features(
        self,
        x: Float[Array, "batch ..."],
        train: bool = False,
        keys: Key[Array, "batch"] | None = None,
    ) -> Float[Array, "batch features"]:
        """What the backbone makes of the inputs: `encoder.apply(variables, x, method="features")`.

        Args:
          x: the inputs.
          train: whether this is a training step.
          keys: a key for each row; needed for stochastic depth in training.

        Raises:
          InputError: `keys` is None, and there is stochastic depth in training.
        """
        if self.standardised:
            x = standardise.Standardise(name=standardise.LAYER)(x)
        if self.statistics is not None:
            x = pixels.normalised(x, self.statistics)
        train = train and not self.frozen
        of_batch = train and not self.fixed_statistics
        depth = getattr(self.backbone, "stochastic_depth", 0.0)
        if not (train and depth):
            return self.backbone(x, of_batch)
        keys = _needed(keys, f"stochastic_depth={depth}")
        # Dropout draws with the keys themselves.
        return self.backbone(x, of_batch, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))


def _needed(keys: Key[Array, "batch"] | None, why: str) -> Key[Array, "batch"]:
    if keys is None:
        raise errors.InputError(
            f"keys=None, but {why} draws for every row: pass one key for each row."
        )
    return keys


class TwoTowers(nn.Module):
    """Two encoders into one space, for rows that come in pairs, as in CLIP.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020. In training the first encoder embeds the
    rows 0, 2, 4 and so on, and the second embeds the others. In evaluation a row of `data.pairs`
    goes through the encoder of its array, and any other input through the first.

    Args:
      first: the encoder of the first row of each pair.
      second: the encoder of the other, with embeddings of the same size.
      shapes: the shape of an input of each, if rows are those of `data.pairs`; None otherwise.
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
        # Without pairs only the first is needed, and compiling drops the other.
        return first if self.shapes is None else jnp.where(x[:, -1:] == 0, first, second)

    def _of(self, tower: int, x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
        """Cuts the rows to the inputs of one encoder."""
        if self.shapes is None:
            return x
        shape = self.shapes[tower]
        return x[:, : math.prod(shape)].reshape(x.shape[0], *shape)


def prefix(
    embeddings: Float[Array, "batch dim"], dim: int, *, normalize: bool
) -> Float[Array, "batch short"]:
    """The first `dim` values of embeddings, as shorter embeddings.

    >>> short = prefix(jnp.array([[3.0, 4.0, 12.0]]), 2, normalize=True)
    >>> print(jnp.round(short, 3))
    [[0.6 0.8]]

    Args:
      embeddings: from an encoder.
      dim: how many values are kept.
      normalize: whether the rest is scaled to unit length again.
    """
    short = embeddings[:, :dim]
    return distances.unit(short) if normalize else short


BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "conv4": Conv4,
    "resnet18": functools.partial(ResNet, stage_sizes=(2, 2, 2, 2), bottleneck=False),
    "resnet34": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=False),
    "resnet50": functools.partial(ResNet, stage_sizes=(3, 4, 6, 3), bottleneck=True),
    **EFFICIENTNETS,
    **CONVNEXTS,
    **VITS,
}
"""The backbones that `encoder` takes by name."""


def encoder(
    name: str | Callable[..., nn.Module],
    *,
    dim: int,
    norm: str = "batch",
    freeze: str = "",
    axis_name: str | None = None,
    **params,
) -> Encoder:
    """Makes an encoder by the name of its backbone.

    >>> import jax
    >>> model = encoder("mlp", dim=8, width=32)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 5)))
    >>> model.apply(variables, jnp.zeros((3, 5))).shape
    (3, 8)

    Args:
      name: a name in `BACKBONES`, or a function that makes a backbone, as those in it do.
      dim: values of an embedding.
      norm: "batch" or "group"; of backbones that let one choose.
      freeze: "backbone" for all of it, or the last of the stages that are frozen, from the first
        on; "" for nothing. `stages.names` of a backbone gives its stages.
      axis_name: the device axis over which batch statistics are averaged, or None.
      **params: other attributes of `Encoder`, such as `normalize`, and of the backbone, such as
        `width`.

    Raises:
      InputError: the backbone, the norm or the stage is not known, the backbone has no attribute
        of a name in `params`, or it cannot freeze a part of its stages.
    """
    if not callable(name):
        errors.check_known("name", name, BACKBONES)
    errors.check_known("norm", norm, NORMS)
    of_encoder = {field: params.pop(field) for field in _ATTRIBUTES & params.keys()}
    make = name if callable(name) else BACKBONES[name]
    known = inspect.signature(make).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    unknown = sorted(params.keys() - known.keys())
    if unknown and not takes_all:
        first = unknown[0]
        raise errors.InputError(
            f"{first}={params[first]!r} is no setting of the backbone {name!r}. Leave it out."
        )
    shared = {"norm": norm, "axis_name": axis_name}
    params = {k: x for k, x in shared.items() if takes_all or k in known} | params
    backbone = make(**params)
    frozen = stages.count_up_to(backbone, freeze) if freeze else 0
    whole = frozen == len(stages.names(backbone))
    if frozen and not whole:
        if hasattr(backbone, "frozen") and (takes_all or "frozen" in known):
            backbone = make(**params, frozen=frozen)
        _check_frozen(backbone, frozen, freeze)
    return Encoder(backbone=backbone, dim=dim, frozen=whole, **of_encoder)


def _check_frozen(backbone: nn.Module, frozen: int, freeze: str) -> None:
    """Refuses a backbone that was not told how many of its stages are frozen."""
    if getattr(backbone, "frozen", 0) != frozen:
        raise errors.InputError(
            f"freeze={freeze!r}: the backbone {type(backbone).__name__} has no attribute `frozen`,"
            " the number of its leading stages that are frozen, or what makes it does not take it."
            " Add it, or freeze 'backbone'."
        )


_ATTRIBUTES = {field.name for field in dataclasses.fields(Encoder)} - {"backbone", "dim", "frozen"}
