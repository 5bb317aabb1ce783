"""Signals that ask a run to stop."""

import os
import signal
import subprocess
import sys

import jax
import pytest
from jax.experimental import multihost_utils

from triplet_jax.devices import signals


def test_the_first_process_of_a_program_is_started_without_the_signals():
    code = """
import signal
from multiprocessing import resource_tracker
from triplet_jax.devices import signals
with signals.held():
    resource_tracker.ensure_running()  # as multiprocessing does before its first process
    print(signals.SIGNALS <= signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_signal_asks_and_a_second_ctrl_c_interrupts():
    before = signal.getsignal(signal.SIGINT)
    stop = signals.Stop()
    with pytest.raises(KeyboardInterrupt, match="SIGINT"), stop.listening():
        assert not stop.before(1)
        signal.raise_signal(signal.SIGUSR1)
        assert stop.before(2)
        assert stop.asked_by == "SIGUSR1"
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_may_be_asked_for_another_reason():
    stop = signals.Stop()
    assert stop.asked_by is None
    stop.ask("no space")
    assert stop.before(1)
    assert stop.asked_by == "no space"


@pytest.fixture
def of_two(monkeypatch):
    """This is one of two processes; the handler of SIGTERM in C, and the signals sent to itself."""
    handlers, sent = ["jax's"], []

    def on_signal(number, handler):
        assert number == signal.SIGTERM
        handlers.append(handler)
        return handlers[-2]

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(signals, "on_signal", on_signal)
    monkeypatch.setattr(signals, "_handler_of_jax", None)
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    return handlers, sent


def test_jax_gets_sigterm_while_a_run_of_several_listens_and_so_tells_the_others(of_two):
    handlers, sent = of_two
    signals.share_sigterm()
    assert handlers[-1] is None  # Python's own takes it
    stop = signals.Stop()
    with stop.listening():
        assert handlers[-1] == "jax's"
        signal.raise_signal(signal.SIGUSR2)
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert stop.asked_by == "SIGUSR2"


@pytest.mark.parametrize(("own", "said"), [(None, "SIGTERM"), (signal.SIGUSR1, "SIGUSR1")])
def test_processes_stop_before_the_step_that_they_agree_on(own, said, of_two, monkeypatch):
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 7)
    stop = signals.Stop()
    stop.signal = own
    assert [stop.before(step) for step in (5, 6, 7)] == [False, False, True]
    assert stop.asked_by == said
