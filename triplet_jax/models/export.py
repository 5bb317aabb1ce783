"""A trained encoder as one file that runs with jax alone, on CPU, GPU and TPU.

    import jax.export, pathlib
    encoder = jax.export.deserialize(bytearray(pathlib.Path("encoder.jaxexport").read_bytes()))
    embeddings = encoder.call(images)

The file holds StableHLO with the weights in it; neither this library nor flax is needed. (To read
any such file jax imports the package flatbuffers.)

It is a program, which XLA compiles and runs unchecked: call none from a source you do not trust.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import PyTree

from triplet_jax.models.pixels import as_floats
from triplet_jax.runs import files

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(
    path: pathlib.Path,
    encoder: nn.Module,
    variables: PyTree,
    input_shape: tuple[int, ...],
    dtype: Any = jnp.uint8,
) -> None:
    """Writes an encoder for batches of any size.

    Args:
      path: of the file.
      encoder: the model.
      variables: its parameters and batch statistics.
      input_shape: of one input.
      dtype: of the inputs; images of uint8 are scaled to [0, 1] inside.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, *input_shape), dtype)
    apply = jax.jit(lambda x: encoder.apply(variables, as_floats(x), train=False))
    exported = jax.export.export(apply, platforms=PLATFORMS)(inputs)
    with files.whole_file(path) as file:
        file.write(exported.serialize())


def load(path: pathlib.Path) -> jax.export.Exported:
    """What `write` wrote; its `call` takes a batch of inputs and returns embeddings."""
    return jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
