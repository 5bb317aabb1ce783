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
        function is compiled once. Of several processes each loads a part of it, and all call
        the function.

    Returns:
      A function of the encoder's variables and of inputs (an array, or `images.Images`,
      which are decoded batch by batch). Embeddings come in the order of the inputs.
    """
    rows = -(-batch // jax.device_count())

    def of_device(variables, inputs):
        embeddings = encoder.apply(variables, as_floats(inputs), train=False)
        return collectives.gather(embeddings, collectives.DEVICES)

    apply = collectives.over_devices(of_device, in_axes=(None, 0))
    # Of a batch, the places of what this process embeds.
    own = (collectives.own_devices()[:, None] * rows + np.arange(rows)).reshape(-1)

    def embed(variables, inputs):
        parts = []
        for start in range(0, len(inputs), jax.device_count() * rows):
            mine = start + own
            part = images.load(inputs[mine[mine < len(inputs)]])
            filled = np.zeros((len(own), *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            shards = filled.reshape(-1, rows, *part.shape[1:])
            parts.append(np.asarray(apply(variables, shards))[: len(inputs) - start])
        return np.concatenate(parts)

    return embed
