"""Errors whose message is for a person, who needs no traceback."""

import difflib
import errno
import re
from collections.abc import Iterable, Mapping

MOST_LISTED = 20

# What a file system says that does not answer, such as one over a network: no word on its files.
NOT_ANSWERING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN}
NOT_ANSWERING |= {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOLCK, errno.ENXIO, errno.ENODEV}


class InputError(ValueError):
    """Input that is refused: the message names the argument, its value, what is allowed, the fix.

    The message is for a person and needs no traceback. It writes an argument as NAME=VALUE, so that
    a program whose user knows another name can put that in: see `renamed`.
    """


class LostError(RuntimeError):
    """What a program cannot do without is missing for now: a process, or room on a disk.

    The message is for a person and needs no traceback.
    """


def renamed(message: str, names: Mapping[str, str]) -> str:
    """A message with other names for its arguments, wherever it writes NAME=.

    >>> renamed("path='x' is not a file", {"path": "--images"})
    "--images='x' is not a file"

    Args:
      message: of an `InputError`.
      names: the new names, by the old ones.
    """
    old = "|".join(map(re.escape, names))
    # No part of a longer name, of a dotted one, or of a path.
    return re.sub(rf"(?<![\w./'\"-])(?:{old})(?==)", lambda found: names[found[0]], message)


def check_known(field: str, value: str, allowed: Iterable[str]) -> None:
    """Refuses a name that is not one of `allowed`, and suggests the nearest.

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
