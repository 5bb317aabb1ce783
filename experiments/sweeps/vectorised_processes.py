"""Groups of runs that train at the same time on a CPU, each in a process with cores of its own.

Compiling a step, and a step of a small encoder, hardly keep a second core busy, so that several
groups on a share of the cores each take as long as one group on all cores. Groups of an encoder
that keeps all cores busy gain nothing, and each needs its memory.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection
from typing import Any, NoReturn

import jax
import numpy as np

from experiments import command
from experiments.config import components, encoders
from experiments.run import lock
from experiments.sweeps import child, parent, runs, vectorised
from triplet_jax.devices import signals

# Seconds between two looks at which runs have ended.
_PAUSE = 0.5
# Seconds to wait for processes of a killed sweep, which may still be saving.
_PATIENCE = 60.0


def train_all(planned: Sequence[runs.Run], sweep, show: Callable[[], None]) -> None:
    """Carries out all runs: on a CPU `sweep.processes` groups at a time, elsewhere one.

    Raises:
      InputError: a run is refused, or another process trains it.
    """
    waiting = [group for group in vectorised.groups(planned) if not _has_ended(group)]
    shares = _shares(min(sweep.processes, len(waiting))) if _may_part(waiting) else []
    stop = signals.Stop()
    with stop.listening():
        _wait_until_saved(waiting, stop)
        if len(shares) > 1:
            vectorised.forget_datasets()  # each process opens its own
            with _working(shares) as workers:
                _train_in_processes(waiting, workers, stop, show)
        elif stop.signal is None:
            vectorised.train_all(planned, sweep, show)


def _has_ended(group):
    return all(run.has_ended for run in group)


def _may_part(waiting):
    """Whether processes know all parts of the runs, and do not compute the same features twice."""
    configs = [group[0].config for group in waiting]
    return not any(components.known_here_alone(c) or encoders.keeps_features(c) for c in configs)


def _shares(count):
    """The cores of each process; none on devices and systems that have no cores to share."""
    if jax.default_backend() != "cpu" or not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return [set(share.tolist()) for share in np.array_split(cores, max(1, min(count, len(cores))))]


def _wait_until_saved(groups, stop):
    """Waits a while for processes of a killed sweep; who else holds a run is reported later."""
    folders = [run.folder for group in groups for run in group]
    end, told = time.monotonic() + _PATIENCE, False
    while stop.signal is None and time.monotonic() < end and any(map(lock.is_claimed, folders)):
        if not told:
            told = True
            print("waiting for another process, which may still be saving these runs", flush=True)
        time.sleep(_PAUSE)


def _train_in_processes(waiting, workers, stop, show):
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


@contextlib.contextmanager
def _working(shares) -> Iterator[list["_Worker"]]:
    """A process for each share of the cores. Whatever happens, leaves none behind."""
    workers = []
    try:
        with signals.held():  # until a process has imported what it needs to save
            workers += map(_Worker, shares)
        yield workers
    finally:
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that trains one group after the other on these cores."""

    def __init__(self, cores: set[int]):
        context = multiprocessing.get_context("spawn")  # a fork would lack the threads of jax
        self.pipe, theirs = context.Pipe()
        self.group: list[runs.Run] = []
        settings = dict(jax.config.values)
        self.process = context.Process(target=_work, args=(theirs, cores, settings))
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
            _report(self.process.exitcode)
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


def _report(status):
    """Prints that a process was killed.

    Raises:
      RuntimeError: it ended by an error, which it has printed.
    """
    if status > 0:
        raise RuntimeError(f"a process that trained runs ended: {child.ending(status)}")
    if status < 0:
        print(f"a process that trained runs was {child.ending(status)}")
    if status == -signal.SIGKILL:
        print("If that was for lack of memory, give --config.processes=1.")


def _work(pipe: connection.Connection, cores: set[int], settings: Mapping[str, Any]) -> NoReturn:
    """Trains the groups that come through a pipe, until it is closed or somebody asks to stop."""
    status = 1
    try:
        parent.end_with(multiprocessing.parent_process().pid)
        os.sched_setaffinity(0, cores)
        command.prepare()
        for name, value in settings.items():  # that a config file may have changed
            if jax.config.values.get(name) != value:
                jax.config.update(name, value)
        with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
            while True:
                pipe.send(_error_of(pipe.recv()))
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        command.leave(status)


def _error_of(group):
    """Trains a group; the error after which it cannot go on, as it can be sent, or None."""
    try:
        vectorised.train_all(group, None, lambda: None)
    except Exception as error:
        text = traceback.format_exc()  # which does not go with an error
        error.add_note(text)
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(text)
        return error
    return None
