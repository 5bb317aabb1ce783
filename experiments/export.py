"""Writes the encoder of a run as one file that runs with jax alone.

python -m experiments.export --workdir=runs/digits --output=encoder.jaxexport
"""

import pathlib

import numpy as np

from experiments import command
from experiments.run import exporting


def main() -> None:
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = command.file_to_write(command.OUTPUT, ".jaxexport")
    step, shape, dtype = exporting.export_encoder(workdir.absolute(), output, command.DATA.value)
    size = output.stat().st_size / 2**20
    print(
        f"the encoder of step {step} written to {output}: {size:.1f} MiB, for batches of"
        f" {np.dtype(dtype).name} inputs of {'x'.join(map(str, shape))}"
    )


if __name__ == "__main__":
    command.run(main)
