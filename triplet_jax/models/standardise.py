"""Features with mean 0 and deviation 1 over the training examples, as a layer of the encoder.

Its statistics stand among the encoder's `batch_stats`, so that a checkpoint and an exported encoder
hold them, and whatever embeds with the encoder applies them. No step changes them.
"""

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
        def stored(name, fill):
            return self.variable("batch_stats", name, fill, x.shape[1:], jnp.float32).value

        # The mean in two parts: of a large one float32 holds too few digits.
        centred = x - stored("mean", jnp.zeros) - stored("mean_rest", jnp.zeros)
        return centred / stored("deviation", jnp.ones)


def statistics(features: Float[np.ndarray, "examples features"]) -> dict[str, np.ndarray]:
    """What `Standardise` needs to know, measured in float64.

    The deviation is that of all examples (divided by their number). A feature that is constant, or
    deviates by less than float32 resolves at its mean, keeps its scale: its deviation is 1.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    # Feature by feature, for want of a second copy of them all in float64.
    columns = zip(features.T, mean, strict=True)
    deviation = np.array([np.sqrt(np.mean((x.astype(np.float64) - m) ** 2)) for x, m in columns])
    varies = deviation > np.finfo(np.float32).eps * np.abs(mean)
    first = mean.astype(np.float32)
    return {
        "mean": first,
        "mean_rest": (mean - first).astype(np.float32),
        "deviation": np.where(varies, deviation, 1.0).astype(np.float32),
    }


def put(batch_stats: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The encoder's `batch_stats` with these statistics in them, at the same nested names."""
    flat = flax.traverse_util.flatten_dict(measured)
    every = flax.traverse_util.flatten_dict(batch_stats)
    return flax.traverse_util.unflatten_dict(every | {k: jnp.asarray(x) for k, x in flat.items()})
