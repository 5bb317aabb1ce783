"""A limit of time, by which a test fails that hangs."""

import contextlib
import signal

import pytest


@contextlib.contextmanager
def fails_after(seconds):
    """For the main thread alone; what fails is no `Exception`, so that nobody else catches it."""

    def stop(*_):
        pytest.fail(f"it was not through after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
