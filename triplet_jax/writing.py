"""Writing files so that none is lost: a file is written whole, or what was there stays."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Opens a file to write, which replaces `path` once the block has ended without an error.

        with writing.whole_file("all.parquet") as file:
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
