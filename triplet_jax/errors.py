"""Errors whose message is for a person, who needs no traceback."""

import difflib
import errno
from collections.abc import Iterable

MOST_LISTED = 20

# What a file system says that does not answer, such as one over a network: no word on its files.
NOT_ANSWERING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESHUTDOWN}
NOT_ANSWERING |= {errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOLCK, errno.ENXIO, errno.ENODEV}


class InputError(ValueError):
    """Input that is refused: the message names the field, the value, what is allowed and the fix.

    Programs under `experiments` print the message without a traceback and exit with 2.
    """


class LostError(RuntimeError):
    """What a program cannot do without is missing for now: a process, or room on a disk.

    Programs under `experiments` print the message without a traceback and exit with 3.
    """


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
