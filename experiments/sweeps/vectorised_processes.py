"""Groups of runs that train at the same time on a CPU, each in a process with cores of its own.

Compiling a step, and a step of a small encoder, hardly keep a second core busy. So several groups
train at a time, each on its share of the cores, where one group on all cores would take as long.
"""

import contextlib
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection

import jax
import numpy as np

from experiments import command
from experiments.config import components
from experiments.sweeps import child, runs, vectorised
from triplet_jax.devices import signals

# Seconds between two looks at which runs have ended.
_PAUSE = 0.5


def train_all(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Carries out all runs: on a CPU `sweep.processes` groups at a time, elsewhere one.

    Raises:
      InputError: a run is refused, or another process trains it.
    """
    waiting = [group for group in vectorised.groups(planned) if not _has_ended(group)]
    shares = _shares(min(sweep.processes, len(waiting)))
    if len(shares) < 2 or any(components.known_here_alone(group[0].config) for group in waiting):
        vectorised.train_all(planned, sweep, show)
        return
    stop = signals.Stop()
    with stop.listening(), _working(shares) as workers:
        while stop.signal is None:
            for worker in workers:
                if waiting and not worker.group:
                    worker.take(waiting.pop(0))
            busy = {worker.pipe: worker for worker in workers if worker.group}
            if not busy:
                return
            for pipe in connection.wait(list(busy), _PAUSE):
                if not busy[pipe].is_through():
                    return
            show()


def _has_ended(group):
    return all(run.has_ended for run in group)


def _shares(count):
    """The cores of each process; none on devices and systems that have no cores to share."""
    if jax.default_backend() != "cpu" or not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return [set(share.tolist()) for share in np.array_split(cores, max(1, min(count, len(cores))))]


@contextlib.contextmanager
def _working(shares) -> Iterator[list["_Worker"]]:
    """A process for each share of the cores. Whatever happens, leaves none behind."""
    workers = []
    try:
        workers += map(_Worker, shares)
        yield workers
    finally:
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that trains one group after the other on these cores."""

    def __init__(self, cores):
        context = multiprocessing.get_context("spawn")  # a fork would lack the threads of jax
        self.pipe, theirs = context.Pipe()
        self.group: list[runs.Run] = []
        self.process = context.Process(target=_work, args=(theirs, cores))
        self.process.start()
        theirs.close()  # so that the end of the process ends the pipe

    def take(self, group: list[runs.Run]) -> None:
        """Gives the process a group to train."""
        self.group = group
        with contextlib.suppress(ConnectionError):  # it was killed: see `is_through`
            self.pipe.send(group)

    def is_through(self) -> bool:
        """Whether the group has ended, and the process was neither killed nor asked to stop.

        Raises:
          Exception: what the process could not go on after.
        """
        try:
            error = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            print(f"a process that trained runs: {child.ending(self.process.exitcode)}")
            return False
        group, self.group = self.group, []
        if error is not None:
            raise error
        return _has_ended(group)

    def end(self) -> None:
        """Ends the process; what it trains is saved."""
        self.pipe.close()
        if self.group:
            self.process.terminate()


def _work(pipe, cores):
    """Trains the groups that come through a pipe, until it is closed or somebody asks to stop."""
    signals.end_with_parent()
    os.sched_setaffinity(0, cores)
    command.prepare()
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            group, error = pipe.recv(), None
            try:
                vectorised.train_all(group, None, lambda: None)
            except Exception as caught:
                caught.add_note(traceback.format_exc())  # a traceback does not go through a pipe
                error = caught
            pipe.send(error)
