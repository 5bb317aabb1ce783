"""Writes the encoder of a run as one file that runs with jax alone.

python -m experiments.export --workdir=runs/digits --output=encoder.jaxexport
"""

import pathlib

import jax
import numpy as np

from experiments import command
from experiments.run import record, restoring
from triplet_jax.models import export


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = command.file_to_write(command.OUTPUT, ".jaxexport")
    step, shape, dtype = write(workdir.absolute(), output, command.DATA.value)
    size = output.stat().st_size / 2**20
    print(
        f"the encoder of step {step} written to {output}: {size:.1f} MiB, for batches of"
        f" {np.dtype(dtype).name} inputs of {'x'.join(map(str, shape))}"
    )


def write(workdir: pathlib.Path, output: pathlib.Path, data: str | None = None):
    """Writes the encoder that a run is judged by; of the data only an old run needs any.

    Args:
      workdir: of the run.
      output: the file.
      data: where the data are now, if they were moved.

    Returns:
      The step of the encoder, and the shape and the type of its inputs.

    Raises:
      InputError: there is no run, or it or its checkpoints cannot be read.
    """
    config = record.read_config(workdir)
    shape, pair_shapes = record.input_shapes(workdir, config, data)
    encoder, state, checkpoints = restoring.load_run(config, workdir, shape, pair_shapes)
    step, chosen = restoring.restore(config, checkpoints, state)
    dtype = np.uint8 if len(shape) == 3 else np.float32
    export.write(output, encoder, jax.device_get(chosen.variables), shape, dtype)
    return step, shape, dtype


if __name__ == "__main__":
    command.run(main)
