"""Exports the encoder of a run as one file."""

import pathlib

import jax
import numpy as np

from experiments.run import config_json, data_json, restoring
from triplet_jax.models import export


def export_encoder(
    workdir: pathlib.Path, output: pathlib.Path, moved_to: str | None = None
) -> tuple[int, tuple[int, ...], type[np.generic]]:
    """Writes the encoder of the checkpoint that a run is judged by.

    Only a run of an old version, which did not keep the shape of its inputs, needs its data.

    Args:
      workdir: of the run.
      output: the file to write.
      moved_to: where the data are now, if they were moved.

    Returns:
      The step of the encoder, and the shape and the type of its inputs.

    Raises:
      InputError: there is no run, or it or its checkpoints cannot be read.
    """
    config = config_json.read(workdir)
    shape, pair_shapes = data_json.input_shapes(workdir, config, moved_to)
    run = restoring.load(workdir, config, shape, pair_shapes)
    step, judged = run.judged()
    dtype = np.uint8 if len(shape) == 3 else np.float32
    export.write(output, run.encoder, jax.device_get(judged.variables), shape, dtype)
    return step, shape, dtype
