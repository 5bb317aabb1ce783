"""Exports the encoder of a run as one file."""

import pathlib
from typing import NamedTuple

import jax
import numpy as np

from experiments.config import naming
from experiments.run import cards, config_json, data_json, encoder_notes, restoring
from triplet_jax import errors
from triplet_jax.models import encoder_files, export, onnx_files

SUFFIXES = {"jax": ".jaxexport", "safetensors": ".safetensors", "onnx": ".onnx"}
"""The formats, and how a file of each ends."""


class Exported(NamedTuple):
    """What was written."""

    step: int
    """Of the checkpoint."""
    shape: tuple[int, ...]
    """Of one input."""
    dtype: type[np.generic]
    """Of the inputs."""
    card: pathlib.Path
    """What is known of it, in Markdown: see `cards`."""
    names: str = ""
    """The library whose names the backbone has in a file of weights; "" where they are ours."""


def export_encoder(
    workdir: pathlib.Path,
    output: pathlib.Path,
    moved_to: str | None = None,
    *,
    kind: str = "jax",
    names: str = "",
) -> Exported:
    """Writes the encoder of the checkpoint that a run is judged by, and a card beside it.

    Only a run of an old version, which did not keep the shape of its inputs, needs its data.

    Args:
      workdir: of the run.
      output: the file to write.
      moved_to: where the data are now, if they were moved.
      kind: of the file, in `SUFFIXES`: "jax" and "onnx" for a program with its weights,
        "safetensors" for the weights alone; the last two with notes on what they expect.
      names: the library whose names the weights of the backbone get; of "safetensors".

    Raises:
      InputError: there is no run, it or its checkpoints cannot be read, or the backbone is not
        published by these names.
    """
    errors.check_known("kind", kind, SUFFIXES)
    config = config_json.read(workdir)
    shape, pair_shapes = data_json.input_shapes(workdir, config, moved_to)
    run = restoring.load(workdir, config, shape, pair_shapes)
    step, judged = run.judged()
    dtype = np.uint8 if len(shape) == 3 else np.float32
    variables = jax.device_get(judged.variables)
    # Programs embed as the run is judged; weights are those of the encoder alone.
    encoder = run.encoder if kind == "safetensors" else run.judged_encoder
    notes = encoder_notes.notes(workdir, config, encoder, step, pair_shapes or (shape,))
    found = ""
    if kind == "jax":
        export.write(output, encoder, variables, shape, dtype)
        use = cards.use_of_program(output, jax.__version__)
    elif kind == "onnx":
        advice = "--format=safetensors and --format=jax need no converter."
        with naming.rewriting(lambda message: f"{_in_flags(message)} {advice}"):
            onnx_files.write(output, encoder, variables, shape, metadata=notes)
        use = cards.use_of_onnx(output)
    else:
        # Under this name other programs look for the licence of weights.
        licence = (notes["weights"] or {}).get("licence")
        said = notes | ({"license": str(licence)} if licence else {})
        with naming.rewriting(_in_flags):
            found = encoder_files.write(output, encoder, variables, names=names, metadata=said)
        use = cards.use_of_weights(found)
    card = cards.write(workdir, output, notes | {"use": use})
    return Exported(step, shape, dtype, card, found)


def _in_flags(message: str) -> str:
    return errors.renamed(message, {"path": "--output", "names": "--names"})
