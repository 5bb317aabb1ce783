"""Reads and writes files; each is written whole, or the file before it stays."""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import secrets
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from triplet_jax import errors


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file for writing that replaces `path` when the block ends without an error.

        with files.whole_file("all.parquet") as file:
            pyarrow.parquet.write_table(table, file)

    Until then it has a name of its own, which ends in `.new`, so that several processes may write
    one file. If the block fails, the `.new` file is removed and `path` stays as it was. Links are
    followed. A path that is no regular file, such as `/dev/stdout`, is written directly.

    Args:
      path: the file; its folder must exist.

    Raises:
      OSError: the file cannot be written, as on a full disk; `filename` is `path`.
    """
    target = pathlib.Path(os.path.realpath(path))
    with naming(path):
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        fresh = target.with_name(f"{target.name}.{secrets.token_hex(4)}.new")
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
    """Makes an OSError of the block name the file that was to be written.

    The error of a full disk names no file, and other errors of `whole_file` name the `.new` file.

    Raises:
      OSError: the block raised it; `filename` is set to `path`.
    """
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        if error.filename2 is not None:  # the second name of a rename
            del error.filename2
        raise


def is_file(path: str | os.PathLike) -> bool:
    """Whether there is a file; none has a name that is too long, or that this user may not look up.

    Raises:
      OSError: the file system does not answer.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        errors.check_answers(error)
    except ValueError:  # a name that holds a zero
        pass
    return False


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: pathlib.Path, *names: str) -> dict[str, Any]:
    """Reads a JSON object from a file.

    Args:
      path: the file.
      *names: keys that the object must have.

    Raises:
      InputError: the file cannot be read as JSON, is no object, or lacks one of the names.
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
    """Writes a text in UTF-8, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_arrays(path: pathlib.Path, **arrays: Any) -> None:
    """Writes arrays into a compressed .npz file, whole or not at all."""
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def names_of_arrays(path: str) -> list[str]:
    """The sorted names of the arrays in an .npz file.

    Raises:
      InputError: the file cannot be read.
    """
    if not is_file(path):
        raise errors.InputError(f"path={path!r} is not a file. Give an .npz file.")
    with _reading(path), zipfile.ZipFile(path) as file:
        return sorted(name.removesuffix(".npy") for name in file.namelist())


def read_arrays(path: str, names: Sequence[str]) -> list[np.ndarray]:
    """Reads arrays from an .npz file, without pickle and with their checksums compared.

    Args:
      path: the file.
      names: the keys of the arrays.

    Returns:
      The arrays, in the order of `names`.

    Raises:
      InputError: the file cannot be read, or lacks one of the arrays.
    """
    if not is_file(path):
        raise errors.InputError(f"path={path!r} is not a file. Give an .npz with {names}.")
    present = names_of_arrays(path)
    missing = sorted(set(names) - set(present))
    if missing:
        raise errors.InputError(f"path={path!r} lacks {missing}; it has the keys {present}.")
    with _reading(path), zipfile.ZipFile(path) as file:
        return [_read_array(file, name) for name in names]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Reports damage, of which numpy, zipfile and zlib raise many kinds of error."""
    try:
        yield
    except Exception as error:
        errors.check_answers(error)
        raise errors.InputError(f"path={path!r} cannot be read as an .npz file: {error}") from error


def _read_array(file: zipfile.ZipFile, name: str) -> np.ndarray:
    with file.open(f"{name}.npy") as member:
        # Without pickle, which would let a file that someone shared run code.
        array = np.lib.format.read_array(member, allow_pickle=False)
        # zipfile compares the checksum at the member's end. numpy's own loader stops before it
        # if damage has made the array smaller.
        if member.read(1):
            raise ValueError(f"more bytes follow the array {name}")
    return array


def write_json(path: pathlib.Path, content: dict | list) -> None:
    """Writes a JSON file, whole or not at all; see `as_json`."""
    write_text(path, as_json(content, indent=2) + "\n")


def as_json(content: Any, *, indent: int | None = None) -> str:
    """JSON that any program can read: NaN and infinity, which JSON lacks, become null.

    >>> as_json({"loss": float("nan")})
    '{"loss": null}'
    """
    return json.dumps(_without_nan(content), indent=indent, allow_nan=False)


def _without_nan(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _without_nan(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
