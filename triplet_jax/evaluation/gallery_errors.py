"""Turns what LanceDB raises into errors that name the gallery and say what to do."""

import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator
from types import ModuleType

from triplet_jax import errors

# What the system says of a file that is gone, or has become a folder.
_OF_DAMAGE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EINVAL}


class UnusableError(errors.InputError):
    """A gallery that is damaged or holds other embeddings; `gallery.remove` makes room for another.

    Args:
      folder: the folder of the gallery.
      why: what is wrong with it, as the rest of a sentence.
    """

    def __init__(self, folder: pathlib.Path, why: str):
        super().__init__(
            f"The gallery in {folder} {why}. Remove that folder to make the gallery anew."
        )
        self.why = why


@contextlib.contextmanager
def naming(folder: pathlib.Path) -> Iterator[None]:
    """Runs a block that uses LanceDB.

    Args:
      folder: the folder of the gallery.

    Raises:
      OSError: the system refused a file, as on a full disk; `filename` is the folder.
      UnusableError: LanceDB failed for another reason.
    """
    try:
        yield
    except errors.InputError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else getattr(error, "errno", None)
        if number is not None and number not in _OF_DAMAGE:
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise UnusableError(folder, f"is damaged: {_first_line(error)}") from error
    except BaseException as error:
        # A length in a damaged file that is past its end makes Rust panic, which is no Exception.
        if type(error).__name__ not in ("PanicException", "RustPanic"):
            raise
        raise UnusableError(folder, f"is damaged: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """Why, without the line in LanceDB's source."""
    return re.split(r", /|\n", str(error) or repr(error))[0][:200]


def libraries() -> tuple[ModuleType, ModuleType]:
    """The modules lancedb and pyarrow.

    Raises:
      InputError: lancedb is not installed.
    """
    try:
        import lancedb
        import pyarrow
    except ImportError as error:
        raise errors.InputError(
            "A gallery needs lancedb: pip install 'triplet_jax[search]', or pip install lancedb"
        ) from error
    return lancedb, pyarrow
