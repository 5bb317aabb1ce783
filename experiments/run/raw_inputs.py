"""The inputs themselves as vectors: the floor for any embedding."""

import numpy as np
from jaxtyping import Float

from triplet_jax import data
from triplet_jax.data import images

# Larger images are averaged over blocks first: 5,000 images of 224 pixels took 6 GiB as floats.
RAW_PIXELS = 64


def raw_inputs(test: data.Dataset) -> Float[np.ndarray, "examples values"]:
    """Flattens the inputs of a split into vectors of length 1.

    Images of more than `RAW_PIXELS` pixels a side are averaged over square blocks, the smallest
    that bring them to `RAW_PIXELS` or below. Rows and columns that fill no block are left out.
    """
    block = block_of(test.input_shape)
    parts = np.split(np.arange(len(test)), range(256, len(test), 256))
    raw = np.concatenate([_averaged(images.load(test.inputs[part]), block) for part in parts])
    raw /= np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    return raw


def block_of(shape: tuple[int, ...]) -> int:
    """The side of the blocks that `raw_inputs` averages over, in pixels.

    Args:
      shape: of one input.
    """
    return -(-min(shape[:2]) // RAW_PIXELS) if len(shape) == 3 else 1


def _averaged(inputs, block):
    if block > 1:
        height, width = (size // block for size in inputs.shape[1:3])
        whole = inputs[:, : height * block, : width * block]
        shape = (len(inputs), height, block, width, block, inputs.shape[3])
        inputs = whole.reshape(shape).mean(axis=(2, 4), dtype=np.float32)
    return inputs.reshape(len(inputs), -1).astype(np.float32)
