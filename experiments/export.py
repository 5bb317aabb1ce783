"""Writes the encoder of a run as one file.

    python -m experiments.export --workdir=runs/digits --output=encoder.jaxexport
    python -m experiments.export --workdir=runs/mine --format=safetensors --output=mine.safetensors

By default the file is a program that runs with jax alone. jax may refuse it once it is older than
six months: keep the run's folder, which does not age.

`--format=safetensors` writes the weights, with the backbone under the names by which its family is
published, so that timm, torchvision or transformers open it, and `--names=timm` chooses among them.

`--format=onnx` writes a program for onnxruntime, in float32, once it gives the same embeddings. It
needs the extra `onnx`, best in an environment of its own.

A card in Markdown beside the file says what it is.
"""

import pathlib

import jax
import numpy as np
from absl import flags

from experiments import command
from experiments.run import exporting
from triplet_jax import errors
from triplet_jax.models import export

FORMAT = flags.DEFINE_enum("format", "jax", [*exporting.SUFFIXES, "torch"], "What the file is.")
NAMES = flags.DEFINE_string(
    "names", "", "The library whose names the weights of the backbone get, such as timm."
)


def main() -> None:
    if FORMAT.value == "torch":
        raise errors.InputError(
            "--format=torch is not written: a file of torch is a pickle, which can run any code,"
            " and would hold what --format=safetensors holds. Give that; in torch,"
            " safetensors.torch.load_file(FILE) is its state_dict."
        )
    workdir = pathlib.Path(command.required(command.WORKDIR, "the folder of a trained run"))
    output = _output()
    if NAMES.value and FORMAT.value != "safetensors":
        raise errors.InputError(
            f"--names={NAMES.value} has no effect with --format={FORMAT.value}, which names no"
            " weights. Leave it out, or give --format=safetensors."
        )
    done = exporting.export_encoder(
        workdir.absolute(), output, command.DATA.value, kind=FORMAT.value, names=NAMES.value
    )
    size = f"{output.stat().st_size / 2**20:.1f} MiB"
    print(f"the encoder of step {done.step} written to {output}: {size}, {_described(done)}")
    print(f"what it is, and how it is used: {done.card}")
    if FORMAT.value == "jax":
        print(
            f"It was written by jax {jax.__version__}, and {export.PROMISE}. Keep the run's folder,"
            " to export it again with a newer jax."
        )


def _output() -> pathlib.Path:
    """The file of --output, whose ending fits --format."""
    suffix = exporting.SUFFIXES[FORMAT.value]
    given = pathlib.Path(command.OUTPUT.value or "").suffix
    for kind, other in exporting.SUFFIXES.items():
        if given == other != suffix:
            raise errors.InputError(
                f"--output={command.OUTPUT.value} is of --format={kind}, not of"
                f" --format={FORMAT.value}. Give --format={kind}, or a file named *{suffix}."
            )
    return command.file_to_write(command.OUTPUT, suffix)


def _described(done: exporting.Exported) -> str:
    if FORMAT.value == "jax":
        return (
            f"for batches of {np.dtype(done.dtype).name} inputs of {'x'.join(map(str, done.shape))}"
        )
    if FORMAT.value == "onnx":
        return f"for batches of float32 inputs of {'x'.join(map(str, done.shape))}"
    if done.names:
        return f"the backbone by the names of {done.names}, the head under triplet_jax.head"
    return "by names of ours, since nobody publishes this backbone"


if __name__ == "__main__":
    command.run(main, takes=(command.DATA, command.OUTPUT))
