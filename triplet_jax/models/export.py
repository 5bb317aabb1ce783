"""Exports an encoder as one file that jax alone can run, on CPU, GPU and TPU.

    import jax.export, pathlib
    encoder = jax.export.deserialize(bytearray(pathlib.Path("encoder.jaxexport").read_bytes()))
    embeddings = encoder.call(images)

The file holds a StableHLO program with the weights in it. Running it takes jax and the package
flatbuffers, but neither this library nor flax.

Such a file is not for keeping. jax promises to run it with releases that are up to six months newer
than the one that wrote it, or up to three weeks older, and may refuse it after that
(https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees). Keep the weights
(`encoder_files`, or a checkpoint), and export them again with a newer jax.

XLA compiles and runs the program unchecked: call no file from a source that you do not trust.
"""

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import PyTree

from triplet_jax import errors
from triplet_jax.models.pixels import as_floats
from triplet_jax.runs import files

PROMISE = (
    "jax promises to run such a file with releases that are up to six months newer than the one"
    " that wrote it, or up to three weeks older"
)
"""How long a file can be used."""
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(
    path: pathlib.Path,
    encoder: nn.Module,
    variables: PyTree,
    input_shape: tuple[int, ...],
    dtype: Any = jnp.uint8,
) -> None:
    """Writes an encoder that takes batches of any size.

    Args:
      path: the file to write.
      encoder: the model.
      variables: its parameters and batch statistics.
      input_shape: the shape of one input.
      dtype: the type of the inputs; images of uint8 are scaled to [0, 1] inside.

    Raises:
      OSError: the file cannot be written.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    inputs = jax.ShapeDtypeStruct((batch, *input_shape), dtype)
    apply = jax.jit(lambda x: encoder.apply(variables, as_floats(x), train=False))
    exported = jax.export.export(apply, platforms=PLATFORMS)(inputs)
    with files.whole_file(path) as file:
        file.write(exported.serialize())


def load(path: pathlib.Path) -> jax.export.Exported:
    """Reads what `write` wrote; `call` of the result takes a batch of inputs to embeddings.

    Raises:
      InputError: jax cannot read the file: it is damaged, or too old or too new for this jax.
      OSError: the file cannot be opened.
    """
    content = bytearray(pathlib.Path(path).read_bytes())
    try:
        return jax.export.deserialize(content)
    except Exception as error:  # damage makes flatbuffers raise many kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise errors.InputError(
            f"path={str(path)!r} cannot be read by jax {jax.__version__} ({why}). It is damaged, or"
            f" too old or too new for this jax: {PROMISE}. Export the encoder again with this jax,"
            " or read the file with the jax that wrote it."
        ) from error
