"""A folder is one process's at a time."""

import os
import signal

import pytest

from experiments.run import lock
from tests.support import programs
from triplet_jax import errors

HOLD = """
import pathlib, sys, time
from experiments.run import lock
with lock.claimed(pathlib.Path(sys.argv[1])):
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that works in the folder."""
    process = programs.start_code(HOLD, tmp_path)
    programs.wait_until(lambda: lock.is_claimed(tmp_path), process)
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_naming_the_first(holder, tmp_path):
    assert lock.is_claimed(tmp_path)
    with pytest.raises(errors.InputError, match=rf"process {holder.pid} on .* is working in"):
        lock.claimed(tmp_path).__enter__()
    assert lock.is_claimed(tmp_path)  # looking takes nothing from the first


def test_a_process_that_is_killed_lets_go(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert not lock.is_claimed(tmp_path)
    with lock.claimed(tmp_path):
        assert lock.is_claimed(tmp_path)
    assert not lock.is_claimed(tmp_path)


def test_nobody_holds_a_folder_without_a_lock(tmp_path):
    assert not lock.is_claimed(tmp_path)


def test_where_locks_are_not_to_be_had_it_goes_on(monkeypatch, tmp_path):
    def without(*_):
        raise OSError(lock._WITHOUT_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", without)
    with lock.claimed(tmp_path), lock.claimed(tmp_path):
        pass
