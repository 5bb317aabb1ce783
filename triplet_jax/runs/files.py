"""Writing files so that none is lost: a file is written whole, or what was there stays."""

import contextlib
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from triplet_jax import errors


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file to write, which replaces `path` once the block has ended without an error.

        with files.whole_file("all.parquet") as file:
            pyarrow.parquet.write_table(table, file)

    Until then it stands beside it, under the same name with `.new` at the end. If the block fails,
    the `.new` file is removed and `path` stays as it was. A link is followed. What is no regular
    file, such as `/dev/stdout`, is written directly.

    Args:
      path: of the file; its folder must exist.

    Raises:
      OSError: it cannot be written, as on a full disk; `filename` is `path`.
    """
    target = pathlib.Path(os.path.realpath(path))
    with naming(path):
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        fresh = target.with_name(target.name + ".new")
        try:
            with fresh.open("wb") as file:
                yield file
            fresh.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Makes an OSError of the block name this file, which was to be written.

    An error of writing itself, as on a full disk, names no file, and one of `whole_file` would name
    the one with `.new`.

    Raises:
      OSError: of the block, with `filename` set to `path`.
    """
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        if error.filename2 is not None:  # of a rename
            del error.filename2
        raise


def read_json(path: pathlib.Path, *names: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
      InputError: it cannot be read, is no object, or lacks one of the names.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise errors.InputError(f"{path} cannot be read as JSON: {error}") from error
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if not isinstance(content, dict) or missing:
        raise errors.InputError(
            f"{path} is damaged: it is no JSON object" + (f" with {missing}." if missing else ".")
        )
    return content


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a whole file of UTF-8 or none; see `whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_arrays(path: pathlib.Path, **arrays) -> None:
    """Writes a whole .npz file or none."""
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def write_json(path: pathlib.Path, content: dict | list) -> None:
    """Writes a whole file or none."""
    write_text(path, as_json(content, indent=2) + "\n")


def as_json(content: Any, *, indent: int | None = None) -> str:
    """JSON that any program reads: NaN and infinity, which JSON does not have, become null."""
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False)


def _without_nan(content):
    if isinstance(content, Mapping):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
