"""Embeddings of many inputs with one encoder, over all devices."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from triplet_jax.data import images
from triplet_jax.devices import collectives
from triplet_jax.models.pixels import as_floats

# Inputs at a time: at most so many, and fewer where the largest layer of so many would take more
# than this. A pass through an encoder took about seven times its largest layer on a CPU.
MOST = 512
LARGEST_LAYER = 128 * 2**20  # bytes


def make_embed(
    encoder: nn.Module, *, batch: int = 0, most: int | None = None
) -> Callable[..., Float[np.ndarray, "n dim"]]:
    """A function `(variables, inputs) -> embeddings`.

    Args:
      encoder: the model.
      batch: inputs at a time, over all devices; 0 chooses by `fitting`. The last batch is padded,
        so that the function is compiled once. Of several processes each loads a part of it, and all
        call the function.
      most: inputs at a time at most, where there are never more to embed; None for no limit.

    Returns:
      A function of the encoder's variables and of inputs (an array, or `images.Images`,
      which are decoded batch by batch). Embeddings come in the order of the inputs.
    """

    def of_device(variables, inputs):
        embeddings = encoder.apply(variables, as_floats(inputs), train=False)
        return collectives.gather(embeddings, collectives.DEVICES)

    apply = collectives.over_devices(of_device, in_axes=(None, 0))

    def embed(variables, inputs):
        at_once = batch or fitting(encoder, variables, jax.eval_shape(as_floats, _one(inputs)))
        at_once = min(at_once, most or at_once)
        rows = -(-at_once // jax.device_count())
        # Of a batch, the places of what this process embeds.
        own = (collectives.own_devices()[:, None] * rows + np.arange(rows)).reshape(-1)
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


def _one(inputs):
    """The shape and type of a batch of one of these inputs."""
    return jax.ShapeDtypeStruct((1, *inputs.shape[1:]), getattr(inputs, "dtype", jnp.uint8))


def fitting(encoder: nn.Module, variables: PyTree, one: jax.ShapeDtypeStruct) -> int:
    """How many inputs to embed at a time, so that it takes about a GiB at most.

    A power of 2, from 1 to `MOST`, of which the largest layer takes at most `LARGEST_LAYER` bytes.
    Nothing is computed: the layers are those of an abstract pass, so that the rule holds for any
    encoder.

    Args:
      encoder: the model.
      variables: its parameters and statistics.
      one: the shape and type of a batch of one input.
    """

    def layers(variables, x):
        return encoder.apply(variables, x, capture_intermediates=True, mutable="intermediates")

    made = jax.tree.leaves((one, jax.eval_shape(layers, variables, one)))
    largest = max(leaf.size * leaf.dtype.itemsize for leaf in made)
    fit = max(1, LARGEST_LAYER // largest)
    return min(MOST, 1 << (fit.bit_length() - 1))
