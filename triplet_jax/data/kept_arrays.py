"""Arrays that take long to find, kept on disk for the next time."""

import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from triplet_jax import errors
from triplet_jax.runs import files

Arrays = dict[str, Shaped[np.ndarray, "..."]]


def find(
    folder: str,
    about: dict[str, Any],
    compute: Callable[[], Arrays],
    renew: Callable[[Arrays], Arrays] = lambda kept: kept,
) -> Arrays:
    """The arrays of an earlier call with the same arguments, or else those that are computed now.

    Args:
      folder: where they are kept; "" to keep nothing.
      about: all that the arrays depend on, as it can be written in JSON.
      compute: gives the arrays.
      renew: brings kept arrays up to date, where they depend on what `about` cannot say.
    """
    if not folder:
        return compute()
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    file = pathlib.Path(folder, f"{digest[:32]}.npz")
    kept = _read(file)
    arrays = renew(kept) if kept else compute()
    if not kept or any(not np.array_equal(kept[name], arrays[name]) for name in arrays):
        _write(file, arrays)
    return arrays


def _read(file: pathlib.Path) -> Arrays:
    """The arrays in a file; none if it is not there or is damaged."""
    if not file.is_file():
        return {}
    try:
        names = files.names_of_arrays(str(file))
        return dict(zip(names, files.read_arrays(str(file), names), strict=True))
    except errors.InputError:
        return {}


def _write(file: pathlib.Path, arrays: Arrays) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_arrays(file, **arrays)
    except OSError as error:
        logging.getLogger(__name__).warning("%s cannot be kept: %s", file, error)


def states(paths: Sequence[str]) -> list[tuple[str, int, int]]:
    """What tells that files have not changed: the path, size and time of each."""
    found = [(path, pathlib.Path(path).stat()) for path in paths]
    return [(path, state.st_size, state.st_mtime_ns) for path, state in found]
