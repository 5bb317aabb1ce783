"""Files in tar archives, read at any place without reading what stands before them."""

import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from triplet_jax import errors

_BLOCK = 512
_AGAIN = "Fetch or pack it again."
# The first bytes of compressed files, and what unpacks them.
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "zstd -d",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
}


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    start: int
    """Its first byte."""
    size: int


def members(path: str) -> Iterator[Member]:
    """The regular files in a tar archive, in their order.

    Args:
      path: the archive, which must not be compressed.

    Raises:
      InputError: it is compressed, damaged or cut short.
    """
    _check_plain(path)
    try:
        with tarfile.open(path, "r:") as archive:
            for found in archive:
                archive.members = []  # which tarfile would keep, all of them
                if found.issparse():
                    raise errors.InputError(
                        f"{path}: {found.name!r} is stored as a sparse file. Pack it without"
                        " --sparse."
                    )
                if found.isreg():
                    yield Member(found.name, found.offset_data, found.size)
            end = archive.offset
    except (tarfile.TarError, OSError) as error:
        errors.check_answers(error)
        raise errors.InputError(f"{path} cannot be read as a tar archive: {error}. {_AGAIN}") from (
            error
        )
    with open(path, "rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise errors.InputError(
                f"{path} is damaged or cut short: no file and no end of the archive begins at byte"
                f" {end:,}. {_AGAIN}"
            )


def _check_plain(path: str) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        errors.check_answers(error)
        raise errors.InputError(f"{path} cannot be read: {error.strerror}.") from error
    for mark, command in _COMPRESSED.items():
        if start.startswith(mark):
            raise errors.InputError(
                f"{path} is compressed, so that its images cannot be read in any order, as batches"
                f" of classes need them. Unpack it with `{command} {pathlib.Path(path).name}`;"
                " pictures do not become smaller by it anyway."
            )


class Pieces(Sequence):
    """Pieces of files as bytes, each of which is read when it is asked for.

    Args:
      paths: the files.
      file: the position of the file of each piece in `paths`.
      start: the first byte of each piece.
      size: the number of its bytes.
    """

    def __init__(
        self,
        paths: Sequence[str],
        file: Int[np.ndarray, "rows"],
        start: Int[np.ndarray, "rows"],
        size: Int[np.ndarray, "rows"],
    ):
        self._paths, self._file, self._start, self._size = tuple(paths), file, start, size

    def __len__(self):
        return len(self._file)

    def __getitem__(self, position: int) -> bytes:
        path, start, size = (
            self._paths[self._file[position]],
            int(self._start[position]),
            int(self._size[position]),
        )
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                piece = file.read(size)
        except OSError as error:
            errors.check_answers(error)
            raise errors.InputError(f"{path} cannot be read: {error.strerror}.") from error
        if len(piece) < size:
            raise errors.InputError(f"{path} has become shorter since it was opened. {_AGAIN}")
        return piece
