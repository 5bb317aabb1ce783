"""Errors whose message tells a user what to do, without a traceback."""

import difflib
import errno
import importlib.util
import re
from collections.abc import Iterable, Mapping

MOST_LISTED = 20
"""With more allowed names than this, a message lists only the nearest ones."""

# The error numbers of a file system that does not answer, such as one over a network. They say
# nothing about its files.
NOT_ANSWERING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN}
NOT_ANSWERING |= {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOLCK, errno.ENXIO, errno.ENODEV}


class InputError(ValueError):
    """Input that is refused: the message names the argument, its value, what is allowed, and a fix.

    A program should show the message without a traceback. It writes an argument as NAME=VALUE, so a
    program whose user knows the argument by another name can put that in: see `renamed`.
    """


def check_answers(error: Exception) -> None:
    """Raises the error of a file system that does not answer: it says nothing about its files.

    >>> check_answers(ValueError("damaged"))
    >>> check_answers(OSError(errno.EIO, "Input/output error", "images.tar"))
    Traceback (most recent call last):
    OSError: [Errno 5] Input/output error: 'images.tar'
    """
    if isinstance(error, OSError) and error.errno in NOT_ANSWERING:
        raise error


class LostError(RuntimeError):
    """A program cannot go on for now: a process is lost, or a disk is full.

    The input is right, so the same call may succeed later. A program should show the message
    without a traceback.
    """


def lacking(module: str, extra: str, *packages: str) -> ModuleNotFoundError | None:
    """The error of importing a module whose packages are not installed.

    Args:
      module: its name.
      extra: the extra of triplet_jax that installs them.
      packages: their names.

    Returns:
      An error that names the first missing package and the extra; None if all are installed.

    Example:
      >>> from triplet_jax import errors
      >>> errors.lacking("triplet_jax.models", "training", "math") is None
      True
      >>> errors.lacking("triplet_jax.models", "training", "not_there").name
      'not_there'
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return ModuleNotFoundError(
                f"{module} needs {package}: pip install 'triplet_jax[{extra}]', or in a clone"
                f" pip install -e '.[{extra}]'.",
                name=package,
            )
    return None


def renamed(message: str, names: Mapping[str, str]) -> str:
    """A message with other names for its arguments, wherever it writes NAME=.

    Lines that are indented stay as they are: they hold commands to type, or the names of files.

    Args:
      message: of an `InputError`.
      names: the new names, by the old ones.

    Example:
      >>> from triplet_jax import errors
      >>> errors.renamed("path='x' is not a file", {"path": "--images"})
      "--images='x' is not a file"
    """
    old = "|".join(map(re.escape, names))
    # Never a part of a longer name, of a dotted one, or of a path.
    written = re.compile(rf"(?<![\w./'\"-])(?:{old})(?==)")
    return "".join(
        line if line.startswith("  ") else written.sub(lambda found: names[found[0]], line)
        for line in message.splitlines(keepends=True)
    )


def check_known(field: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a name that is not one of `allowed`, and suggests the nearest.

    Args:
      field: what the name is called in the message.
      value: the name.
      allowed: the names that are known.

    Raises:
      InputError: `value` is not in `allowed`.
    """
    allowed = sorted(allowed)
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), allowed, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if not near or len(allowed) <= MOST_LISTED:
        hint += f" Allowed: {', '.join(allowed)}."
    raise InputError(f"{field}={value!r} is not known.{hint}")
