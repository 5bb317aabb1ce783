"""A first layer of the encoder that gives features mean 0 and deviation 1 over the training split.

Its statistics are among the encoder's `batch_stats`. So checkpoints and exported encoders hold
them, every embedding uses them, and no training step changes them.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LAYER = "features"
"""The name of the layer within an encoder."""


class Standardise(nn.Module):
    """`(x - mean) / deviation` of each feature; the identity until `put` gives it statistics."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
        def stored(name: str, fill: Callable) -> Float[Array | np.ndarray, "size"]:
            return self.variable("batch_stats", name, fill, x.shape[1:], jnp.float32).value

        # The mean is in two parts, since float32 holds too few digits of a large one.
        centred = x - stored("mean", jnp.zeros) - stored("mean_rest", jnp.zeros)
        return centred / stored("deviation", jnp.ones)


def statistics(features: Float[np.ndarray, "examples features"]) -> dict[str, np.ndarray]:
    """Measures the mean and the deviation of each feature in float64.

    The deviation divides by the number of examples. A feature that is constant, or varies by less
    than float32 resolves at its mean, keeps its scale: its deviation counts as 1.

    Returns:
      The variables of `Standardise`: `mean`, `mean_rest` (what float32 leaves of the mean) and
      `deviation`, each `[features]` of float32.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    # Feature by feature, which needs no second copy of all of them in float64.
    columns = zip(features.T, mean, strict=True)
    deviation = np.array([np.sqrt(np.mean((x.astype(np.float64) - m) ** 2)) for x, m in columns])
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    first = mean.astype(np.float32)
    return {
        "mean": first,
        "mean_rest": (mean - first).astype(np.float32),
        "deviation": np.where(varies, deviation, 1.0).astype(np.float32),
    }


def put(variables: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Puts arrays, such as measured statistics, into variables, under the same nested names."""
    flat = flax.traverse_util.flatten_dict(given)
    every = flax.traverse_util.flatten_dict(variables)
    return flax.traverse_util.unflatten_dict(every | {k: jnp.asarray(x) for k, x in flat.items()})
