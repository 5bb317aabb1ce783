"""Signals that ask a run to stop, and when it does."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2})


def interrupt_on_signals() -> None:
    """Lets all of them do what Ctrl-C does, where no `Stop` listens: a KeyboardInterrupt with the
    name of the signal."""
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def share_sigterm() -> None:
    """Once jax has joined several processes, and taken SIGTERM: jax has it while a `Stop` listens,
    and tells the other processes; else it does what all of them do."""
    global _handler_of_jax
    _handler_of_jax = on_signal(signal.SIGTERM, None)


# Sets a handler in C, as jax does, which Python neither sees nor can set; returns the one before.
on_signal = ctypes.CDLL(None).signal
on_signal.restype, on_signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
_handler_of_jax = None


def _interrupt(number, frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


class Stop:
    """Whether somebody asked the run to stop: by Ctrl-C, by SIGTERM, or by the SIGUSR1 or SIGUSR2
    that SLURM sends before it takes a machine away.

    Of several processes one may be asked, and all stop before the same step.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Takes the signals; a second Ctrl-C interrupts at once."""

        def ask(number, frame):
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
        """Whether to stop before this step; every process asks of every step."""
        if jax.process_count() == 1:
            return self.signal is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        self.signal = self.signal or signal.SIGTERM
        return True


@contextlib.contextmanager
def held() -> Iterator[None]:
    """No thread or process that is started meanwhile is reached by a signal to stop.

    Ctrl-C in a terminal and the signals of SLURM go to all processes of a run, and those that load
    its batches have to go on until the run itself has come to a step to stop before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
