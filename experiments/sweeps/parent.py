"""Ends a process together with its parent. This imports little, since a process calls it first."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(pid: int) -> None:
    """Ends this process once its parent is killed: on Linux, which then sends SIGTERM.

    Args:
      pid: of the parent, which may have ended before Linux was asked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != pid:
        sys.exit(f"process {pid}, which started this one, has ended")
