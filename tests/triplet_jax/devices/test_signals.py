"""Signals that ask a run to stop."""

import subprocess
import sys


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
