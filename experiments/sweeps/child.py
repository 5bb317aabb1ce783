"""Trains a run of a sweep in a process of its own."""

import os
import pathlib
import signal
import subprocess
import sys
from typing import IO

from experiments.config import saved_configs

# Runs `python -m experiments.train`. `preexec_fn` could ask to end with the parent too, but forks
# this process while jax has threads.
_TRAIN = """
import runpy
from experiments.sweeps import parent
parent.end_with({parent})
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
"""


def start(folder: pathlib.Path, log: IO[str]) -> subprocess.Popen:
    """Starts to train by the config in the run's folder; what the process prints goes to `log`."""
    config = f"--config={saved_configs.__file__}:{folder / 'config.json'}"
    return subprocess.Popen(
        [sys.executable, "-c", _TRAIN.format(parent=os.getpid()), config, f"--workdir={folder}"],
        stdout=log,
        stderr=subprocess.STDOUT,
    )


# The lines of an error. What stands further up is of an earlier try.
_LONGEST_ERROR = 12


def last_word(folder: pathlib.Path, status: int) -> str:
    """Says why a process ended, by its exit status and the end of its log.

    That is the last error, which may have several lines, or else the last line.
    """
    if status < 0:
        return ending(status)
    log = folder / "log.txt"
    lines = log.read_text().strip().splitlines() if log.exists() else []
    last = lines[-1:]
    for at in range(len(lines))[-_LONGEST_ERROR:]:
        if lines[at].startswith("error: "):
            last = lines[at:]
    return "\n".join(last).removeprefix("error: ") or ending(status)


def ending(status: int) -> str:
    """Names how a process ended, by its exit status."""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
