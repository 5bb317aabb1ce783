"""Encoders as .onnx files, which onnxruntime runs without jax.

jax2onnx converts them (https://github.com/enpasos/jax2onnx). What it makes is run by onnxruntime
and compared with the encoder before it is written.
"""

import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from triplet_jax import errors
from triplet_jax.runs import files

TOLERANCE = 1e-4
"""How far an embedding by onnxruntime may be from ours, in parts of our largest value above 1."""
MOST_BYTES = 2**31 - 1
"""What an .onnx file can hold, as protocol buffers can."""
INPUTS, EMBEDDINGS = "inputs", "embeddings"
"""The names of what the program takes and gives."""


def write(
    path: pathlib.Path,
    encoder: nn.Module,
    variables: PyTree,
    input_shape: tuple[int, ...],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes an encoder that takes batches of any size, of float32; images have values from 0 to 1.

    Args:
      path: the file to write.
      encoder: the model.
      variables: its parameters and batch statistics.
      input_shape: of one input.
      metadata: what the file says beside its program; what is no text becomes JSON.

    Raises:
      InputError: a package is missing, or the converter does not take this encoder, or gives other
        embeddings, or no file holds its weights.
      OSError: the file cannot be written.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(variables))
    if size > MOST_BYTES:
        raise errors.InputError(
            f"path={str(path)!r}: an .onnx file holds at most {MOST_BYTES:,} bytes, and the weights"
            f" of this encoder take {size:,}."
        )
    try:
        import jax2onnx
        import onnx
        import onnxruntime
    except ImportError as error:
        raise errors.InputError(
            f"path={str(path)!r} needs the package {error.name}, which is not installed: pip"
            " install 'triplet_jax[onnx]', best in an environment of its own."
        ) from error

    version = importlib.metadata.version("jax2onnx")

    def embed(x):
        return encoder.apply(variables, x, train=False)

    try:
        model = jax2onnx.to_onnx(
            embed,
            inputs=[("batch", *input_shape)],
            input_names=[INPUTS],
            output_names=[EMBEDDINGS],
        )
        # The converter leaves outdated shapes behind, of arrays whose axes it has exchanged since.
        del model.graph.value_info[:]
        for name, value in (metadata or {}).items():
            text = value if isinstance(value, str) else files.as_json(value)
            model.metadata_props.add(key=name, value=text)
        onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        # Two sizes of a batch, so that the size is seen to be free.
        x = np.random.default_rng(0).uniform(size=(3, *input_shape)).astype(np.float32)
        found = [session.run([EMBEDDINGS], {INPUTS: x[i:]})[0] for i in (0, 2)]
    except Exception as error:  # converters and runtimes raise many kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise errors.InputError(
            f"path={str(path)!r}: jax2onnx {version} does not convert this encoder ({why})."
        ) from error
    embeddings = np.asarray(embed(jnp.asarray(x)))
    different = _difference(found, [embeddings[i:] for i in (0, 2)])
    if different:
        raise errors.InputError(
            f"path={str(path)!r}: the program that jax2onnx {version} makes of this encoder gives"
            f" embeddings {different}. It was not written."
        )
    with files.whole_file(path) as file:
        file.write(content)


def _difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> str:
    """How the embeddings of some batches differ from ours, or ""."""
    shapes, ours = ([y.shape for y in batches] for batches in (found, wanted))
    if shapes != ours:
        return f"of shapes {shapes} instead of {ours}"
    # Not by Python's max, which passes over NaN.
    off = np.max([np.abs(y - z).max() for y, z in zip(found, wanted, strict=True)])
    most = TOLERANCE * max(1.0, *(np.abs(z).max() for z in wanted))
    return "" if off <= most else f"that are off by {off:.2g}"
