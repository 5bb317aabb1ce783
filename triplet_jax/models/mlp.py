"""A multilayer perceptron, the backbone for features."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.models import layers


class MLP(nn.Module):
    """Dense layers with normalisation and ReLU on the flattened input.

    Args:
      width: units of a layer.
      depth: the number of layers.
      norm: "batch" or "group".
      axis_name: the device axis over which batch statistics are averaged, or None.
      dtype: the type that is computed in; None for float32. Parameters, statistics of
        normalisation and the features stay float32.
    """

    width: int = 256
    depth: int = 2
    norm: str = "batch"
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch ..."], train: bool) -> Float[Array, "batch features"]:
        norm = layers.make_norm(self.norm, train=train, axis_name=self.axis_name, dtype=self.dtype)
        x = x.reshape(x.shape[0], -1)
        for _ in range(self.depth):
            x = nn.Dense(self.width, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(norm()(x))
        return x.astype(jnp.float32)
