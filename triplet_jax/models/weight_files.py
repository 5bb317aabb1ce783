"""Reads files of published weights: .safetensors, from a disk or from the Hugging Face Hub.

Such a file holds arrays and nothing else, so that reading one from somebody else runs no code. A
pickle, as torch writes it, can run any, and is never opened.
"""

import hashlib
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from triplet_jax import errors
from triplet_jax.models import hub
from triplet_jax.runs import files

SUFFIX = ".safetensors"


class PickleError(errors.InputError):
    """A file holds a pickle, as torch writes it, where one of safetensors is needed."""


class Weights(NamedTuple):
    """The arrays of a file of weights, and where they come from."""

    tensors: dict[str, np.ndarray]
    """By name. Those of 16 and 32 bits are float32; others have the type of the file."""
    source: str
    """As it was asked for."""
    sha256: str
    """Of the file; of weights in several files, that of their own hashes, one after the other."""
    licence: str | None
    """As the file, or the page of its repository, states it."""


def read(weights: str) -> Weights:
    """Reads the arrays of a file.

    Args:
      weights: the path of a .safetensors file, or `hf://ORG/NAME`, `hf://ORG/NAME@REVISION` or
        `hf://ORG/NAME/FILE.safetensors` of the Hugging Face Hub. What was downloaded once is taken
        from the cache of huggingface_hub, without asking the Hub again.

    Raises:
      InputError: there is no such file, it is damaged or no .safetensors, it has arrays of a type
        that numpy lacks, or a package is missing.
      LostError: the Hub cannot be reached.
    """
    found = find(weights)
    tensors, licence, hashes = {}, None, []
    for path in found.paths:
        arrays, metadata = _arrays(path, weights)
        tensors |= arrays
        licence = licence or metadata.get("license") or metadata.get("licence")
        hashes.append(files.sha256(path))
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Weights(tensors, weights, whole, licence or found.licence)


def find(weights: str) -> hub.Fetched:
    """The files that `read` reads, downloaded if need be; it raises the errors of `read`."""
    check_safetensors("weights", weights)
    return hub.fetch(weights) if hub.is_address(weights) else hub.Fetched((_on_disk(weights),))


def metadata(weights: str) -> dict[str, str]:
    """What a file on a disk says beside its arrays.

    Args:
      weights: the path of a .safetensors file.

    Raises:
      InputError: there is no such file, or it is damaged or no .safetensors.
    """
    check_safetensors("weights", weights)
    path = _on_disk(weights)
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise _damaged(weights, path, error) from error


def check_safetensors(name: str, value: str) -> None:
    """Refuses an argument that needs the package safetensors, where it is not installed.

    Raises:
      InputError: it is not installed.
    """
    if importlib.util.find_spec("safetensors") is None:
        raise errors.InputError(
            f"{name}={value!r} needs the package safetensors: pip install 'triplet_jax[weights]',"
            " or pip install safetensors"
        )


def _on_disk(weights: str) -> pathlib.Path:
    """The file, if it may be one of safetensors."""
    path = pathlib.Path(weights)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise errors.InputError(
            f"weights={weights!r} is {what}. Give the path of a {SUFFIX} file, or"
            f" {hub.SCHEME}ORG/NAME of the Hugging Face Hub."
        )
    with path.open("rb") as file:
        start = file.read(4)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        raise PickleError(
            f"weights={weights!r} holds a pickle, as torch writes it, which can run any code when"
            f" it is opened. Convert it to {SUFFIX} once."
        )
    return path


def _arrays(path: pathlib.Path, weights: str) -> tuple[dict[str, np.ndarray], Mapping[str, str]]:
    import safetensors

    arrays = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names, metadata = file.keys(), file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            strange = {name: kind for name, kind in kinds.items() if kind not in _KINDS}
            if strange:
                name, kind = next(iter(strange.items()))
                raise errors.InputError(
                    f"weights={weights!r} has {name} of the type {kind}, which is not read. Give"
                    " weights of float32, float16 or bfloat16."
                )
            for name in names:
                array = file.get_tensor(name)
                arrays[name] = array.astype(np.float32) if kinds[name] in _FLOATS else array
    except safetensors.SafetensorError as error:
        raise _damaged(weights, path, error) from error
    return arrays, metadata


def _damaged(weights: str, path: pathlib.Path, error: Exception) -> errors.InputError:
    return errors.InputError(
        f"weights={weights!r} cannot be read as {SUFFIX} ({error}): {path} is damaged, cut off"
        " or of another kind. Fetch it again."
    )


_FLOATS = {"F16", "BF16", "F32"}
_KINDS = _FLOATS | {"F64", "BOOL", *(f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64))}
