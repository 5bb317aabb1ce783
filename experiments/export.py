"""Writes the encoder of a run as one file that runs with jax alone.

python -m experiments.export --workdir=runs/digits --output=encoder.jaxexport
"""

import pathlib

import jax
import numpy as np

from experiments import build, command, evaluate
from triplet_jax import exported


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = command.file_to_write(command.OUTPUT, ".jaxexport")
    config = evaluate.read_config(workdir)
    everything = build.dataset(config)
    shape = everything.input_shape
    encoder, state, checkpoints = evaluate.load_run(
        config, workdir.absolute(), shape, everything.pair_shapes
    )
    step, chosen = evaluate.restore(config, checkpoints, state)
    dtype = np.uint8 if len(shape) == 3 else np.float32
    exported.write(output, encoder, jax.device_get(chosen.variables), shape, dtype)
    size = output.stat().st_size / 2**20
    print(
        f"the encoder of step {step} written to {output}: {size:.1f} MiB, for batches of"
        f" {np.dtype(dtype).name} inputs of {'x'.join(map(str, shape))}"
    )


if __name__ == "__main__":
    command.run(main)
