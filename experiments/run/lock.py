"""The lock of a folder: one process at a time works in it, and a second one is refused."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Iterator

from triplet_jax import errors

LOCK = ".lock"
# Seconds before a claim is refused: `is_claimed` holds the lock for a moment, and a process writes
# its name just after it has taken the lock.
_GRACE = 0.5
# The errors of file systems that have no locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, *, patience: float = 0.0) -> Iterator[None]:
    """Holds a folder until the block ends.

    If the process is killed, the system releases its lock. The file stays: if it were removed, a
    third process could lock a new file while a second one holds the old.

    Args:
      workdir: the folder.
      patience: how many seconds to wait for another process to release it.

    Raises:
      InputError: another process still holds it.
    """
    with (workdir / LOCK).open("a+") as file:
        end = time.monotonic() + max(patience, _GRACE)
        while not (locked := _lock(file)) and time.monotonic() < end:
            time.sleep(0.1)
        if not locked:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise errors.InputError(
                f"{holder} is working in --workdir={workdir}. Wait until it has ended, or give"
                " another --workdir."
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def is_claimed(workdir: pathlib.Path) -> bool:
    """Whether another process holds the folder."""
    path = workdir / LOCK
    if not path.exists():
        return False
    with path.open("a") as file:
        return not _lock(file)


def _lock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True
