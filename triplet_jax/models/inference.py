"""Inference: embeds many inputs with one encoder, batch by batch over all devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, Shaped

from triplet_jax.data import images
from triplet_jax.devices import collectives
from triplet_jax.models import encoder_parts
from triplet_jax.models.pixels import as_floats

MOST = 512
"""The most inputs that are embedded at a time."""
LARGEST_LAYER = 128 * 2**20
"""The most bytes that an encoder's largest layer may take; a whole pass takes about seven times as
much, as measured on a CPU."""


def make_embed(
    encoder: encoder_parts.Applied, *, batch: int = 0, most: int | None = None
) -> Callable[..., Float[np.ndarray, "n dim"]]:
    """Makes a function `(variables, inputs) -> embeddings`.

    Args:
      encoder: the model, or a part of it.
      batch: how many inputs are embedded at a time, over all devices; 0 chooses by `fitting`. The
        last batch is padded, so that the function is compiled once. In a run of several processes
        all of them call the function, and each loads a part of every batch.
      most: an upper limit to `batch`, for callers that never embed more at once; None for none.

    Returns:
      A function of the encoder's variables and of inputs: an array, or `images.Images`, which are
      decoded batch by batch. Embeddings come in the order of the inputs; `[0, dim]` for none.
    """

    def of_device(variables: PyTree, inputs: Shaped[Array, "rows ..."]) -> Float[Array, "all dim"]:
        embeddings = encoder.apply(variables, as_floats(inputs), train=False)
        return collectives.gather(embeddings, collectives.DEVICES)

    apply = collectives.over_devices(of_device, in_axes=(None, 0))
    # Kept for each shape and type of inputs: an abstract pass takes longer than embedding a few.
    fits: dict[tuple, int] = {}

    def embed(variables: PyTree, inputs: np.ndarray | images.Images) -> Float[np.ndarray, "n dim"]:
        one = _one(inputs)
        kind = one.shape, one.dtype
        if not batch and kind not in fits:
            fits[kind] = fitting(encoder, variables, jax.eval_shape(as_floats, one))
        at_once = batch or fits[kind]
        at_once = min(at_once, most or at_once)
        rows = -(-at_once // jax.device_count())
        # The positions, within a batch, of the inputs that this process embeds.
        own = (collectives.own_devices()[:, None] * rows + np.arange(rows)).reshape(-1)
        parts = []
        # One batch of padding, where there are no inputs: its rows say how many values they have.
        for start in range(0, max(1, len(inputs)), jax.device_count() * rows):
            mine = start + own
            part = images.load(inputs[mine[mine < len(inputs)]])
            filled = np.zeros((len(own), *part.shape[1:]), part.dtype)
            filled[: len(part)] = part
            shards = filled.reshape(-1, rows, *part.shape[1:])
            parts.append(np.asarray(apply(variables, shards))[: len(inputs) - start])
        return np.concatenate(parts)

    return embed


def _one(inputs: np.ndarray | images.Images) -> jax.ShapeDtypeStruct:
    """The shape and type of a batch of one input."""
    return jax.ShapeDtypeStruct((1, *inputs.shape[1:]), getattr(inputs, "dtype", jnp.uint8))


def fitting(encoder: encoder_parts.Applied, variables: PyTree, one: jax.ShapeDtypeStruct) -> int:
    """How many inputs to embed at a time, so that a pass takes about 1 GiB at most.

    It is the largest power of 2, up to `MOST`, for which the encoder's largest layer takes at most
    `LARGEST_LAYER` bytes; at least 1. The sizes come from an abstract pass, which computes nothing.

    Args:
      encoder: the model, or a part of it.
      variables: its parameters and statistics.
      one: the shape and type of a batch of one input.
    """

    def layers(variables: PyTree, x: Float[Array, "1 ..."]) -> Any:
        return encoder.apply(variables, x, capture_intermediates=True, mutable="intermediates")

    made = jax.tree.leaves((one, jax.eval_shape(layers, variables, one)))
    largest = max(leaf.size * leaf.dtype.itemsize for leaf in made)
    fit = max(1, LARGEST_LAYER // largest)
    return min(MOST, 1 << (fit.bit_length() - 1))
