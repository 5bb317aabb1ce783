"""The two parts of an encoder, each to be applied alone: its backbone and its head."""

import dataclasses
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, PyTree


@dataclasses.dataclass(frozen=True)
class BackboneOf:
    """Gives the features of an encoder's backbone, `apply(variables, inputs)`."""

    encoder: nn.Module

    def apply(self, variables: PyTree, x: Float[Array, "batch ..."], **rest: Any) -> Any:
        """The features of inputs; `rest` goes to `Encoder.features` and to `flax.linen.apply`."""
        return self.encoder.apply(variables, x, method="features", **rest)


@dataclasses.dataclass(frozen=True)
class HeadOf:
    """Embeds from the features of a frozen backbone, `apply(variables, features)`."""

    encoder: nn.Module

    frozen = True

    @property
    def backbone(self) -> nn.Module:
        """The backbone, which is not applied."""
        return self.encoder.backbone

    def apply(self, variables: PyTree, x: Float[Array, "batch features"], **rest: Any) -> Any:
        """The embeddings of features; `rest` goes to the encoder."""
        return self.encoder.apply(variables, x, from_features=True, **rest)


Applied = nn.Module | BackboneOf | HeadOf
"""An encoder, or one of its parts: what maps inputs to vectors by `apply`."""
