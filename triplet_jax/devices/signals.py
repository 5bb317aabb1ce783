"""Signals that ask a run to stop, and the step before which it stops."""

import contextlib
import ctypes
import os
import signal
import types
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})


def interrupt_on_signals() -> None:
    """Makes each signal raise a KeyboardInterrupt with its name, as Ctrl-C does.

    A `Stop` that listens takes the signals instead.
    """
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def share_sigterm() -> None:
    """Shares SIGTERM with jax, which takes it over when it joins several processes.

    While a `Stop` listens, jax gets the signal and tells the other processes. Otherwise it raises a
    KeyboardInterrupt, as the other signals do. Call this after `jax.distributed.initialize`.
    """
    global _handler_of_jax
    _handler_of_jax = on_signal(signal.SIGTERM, None)


# Sets a handler in C and returns the one before. jax's handler is set in C, too, where the module
# signal can neither see nor restore it.
on_signal = ctypes.CDLL(None).signal
on_signal.restype, on_signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
_handler_of_jax = None


def _interrupt(number: int, frame: types.FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(number).name)


class Stop:
    """Whether the run was asked to stop.

    It is asked by Ctrl-C, by SIGTERM, or by the SIGUSR1 or SIGUSR2 that SLURM sends before it takes
    a machine away. It is enough to ask one of several processes: all stop before the same step. A
    run of one process is also asked by `ask`.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._reason: str | None = None

    def ask(self, reason: str) -> None:
        """Asks to stop before the next step, for a reason other than a signal."""
        self._reason = reason

    @property
    def asked_by(self) -> str | None:
        """The name of the signal, or the reason; None where nobody asked."""
        return self.signal.name if self.signal is not None else self._reason

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Takes the signals within the block; a second Ctrl-C interrupts at once."""

        def ask(number: int, frame: types.FrameType | None) -> None:
            if self.signal is not None and number == signal.SIGINT:
                _interrupt(number, frame)
            self.signal = signal.Signals(number)
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)

        before = {s: signal.signal(s, ask) for s in SIGNALS}
        if jax.process_count() > 1:
            on_signal(signal.SIGTERM, _handler_of_jax)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def before(self, step: int) -> bool:
        """Whether to stop before this step. Every process must ask before every step."""
        if jax.process_count() == 1:
            return self.asked_by is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self.signal = self.signal or signal.SIGTERM
        return True


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Keeps the signals from the threads and processes that are started within the block.

    Ctrl-C in a terminal and the signals of SLURM reach all processes of a run. Those that load its
    batches must go on until the run itself has reached the step before which it stops.
    """
    # With the first process, Python starts a tracker of resources, and lets SIGINT and SIGTERM
    # through again after that: the process itself would be started without the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
