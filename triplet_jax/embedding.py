"""Embeddings of many inputs with one encoder, over all devices."""

from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from triplet_jax import collectives, images
from triplet_jax.train_step import as_floats


def make_embed(
    encoder: nn.Module, *, batch: int = 512
) -> Callable[..., Float[np.ndarray, "n dim"]]:
    """A function `(variables, inputs) -> embeddings`.

    Args:
      encoder: the model.
      batch: inputs at a time, over all devices; the last batch is padded, so that the
        function is compiled once.

    Returns:
      A function of the encoder's variables and of inputs (an array, or `images.Images`,
      which are decoded batch by batch). Embeddings come in the order of the inputs.
    """
    devices = jax.local_device_count()
    rows = -(-batch // devices)
    apply = jax.pmap(
        lambda variables, inputs: encoder.apply(variables, as_floats(inputs), train=False),
        axis_name=collectives.DEVICES,
        in_axes=(None, 0),
    )

    def embed(variables, inputs):
        parts = []
        for start in range(0, len(inputs), devices * rows):
            stop = min(start + devices * rows, len(inputs))
            part = images.load(inputs[np.arange(start, stop)])
            shards = np.zeros((devices * rows, *part.shape[1:]), part.dtype)
            shards[: len(part)] = part
            embeddings = apply(variables, shards.reshape(devices, rows, *part.shape[1:]))
            parts.append(np.asarray(embeddings).reshape(devices * rows, -1)[: len(part)])
        return np.concatenate(parts)

    return embed
