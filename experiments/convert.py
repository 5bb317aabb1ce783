"""Writes the weights of a file of torch as .safetensors, once, so that no pickle is opened later.

    python -m experiments.convert --input=weights.pth --output=weights.safetensors

It needs torch, which opens the file with weights_only=True: a file that holds more than arrays is
refused. The names and the types of the arrays stay as they are. `--key` names the part of a
checkpoint that holds the weights; otherwise state_dict and model are looked for.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import command
from triplet_jax import errors
from triplet_jax.models import weight_files
from triplet_jax.runs import files

INPUT = flags.DEFINE_string("input", None, "The file of torch: .pth, .pt, .bin or .ckpt.")
KEY = flags.DEFINE_string("key", None, "The part of the file that holds the weights.")

_KEYS = ("state_dict", "model")
_PARALLEL = "module."


def main() -> None:
    source = pathlib.Path(command.required(INPUT, "the file of torch to convert"))
    output = command.file_to_write(command.OUTPUT, weight_files.SUFFIX)
    if not source.is_file():
        raise errors.InputError(f"--input={source} is no file. Give the file of weights.")
    try:
        import safetensors.torch as writer
        import torch
    except ImportError as error:
        raise errors.InputError(
            f"--input={source} is opened by torch, and the package {error.name} is not installed:"
            f" pip install torch {weight_files.SUFFIX[1:]}"
        ) from error
    tensors, others = _tensors(_opened(torch, source), source, torch.Tensor)
    for name in others:
        print(f"left out, as it is no array: {name}")
    metadata = {"format": "pt", "source": source.name, "source_sha256": files.sha256(source)}
    content = writer.save({n: t.contiguous().clone() for n, t in tensors.items()}, metadata)
    with files.whole_file(output) as file:
        file.write(content)
    print(f"written to {output}: {len(tensors)} arrays, {len(content):,} bytes")


def _opened(torch: Any, source: pathlib.Path) -> Any:
    """What the file holds, without running any code of it."""
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # damage makes torch raise many kinds
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise errors.InputError(
            f"--input={source} cannot be opened by torch as weights alone ({why}). It is damaged,"
            " no file of torch, or holds more than arrays: then save model.state_dict() with torch,"
            " on a machine where you trust it."
        ) from error


def _tensors(found: Any, source: pathlib.Path, kind: type) -> tuple[dict[str, Any], list[str]]:
    """The arrays by name, and the names of what is none."""
    if KEY.value:
        if not isinstance(found, Mapping) or KEY.value not in found:
            known = sorted(map(str, found)) if isinstance(found, Mapping) else []
            raise errors.InputError(
                f"--key={KEY.value} is not in {source}, which has {known[:20]}. Give one of them,"
                " or leave it out."
            )
        found = found[KEY.value]
    else:
        for key in _KEYS:
            if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
                found = found[key]
    tensors = {}
    if isinstance(found, Mapping):
        tensors = {str(name): t for name, t in found.items() if isinstance(t, kind)}
    if not tensors:
        parts = sorted(map(str, found))[:20] if isinstance(found, Mapping) else type(found).__name__
        raise errors.InputError(
            f"--input={source} holds no arrays by name, but {parts}. Give a file with a state_dict,"
            " or name the part that holds one by --key."
        )
    others = [str(name) for name in found if str(name) not in tensors]
    if all(name.startswith(_PARALLEL) for name in tensors):  # of torch's DataParallel
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    return tensors, others


if __name__ == "__main__":
    command.run(main, takes=(command.OUTPUT,))
