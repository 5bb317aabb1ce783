"""A folder is one process's at a time."""

import errno
import fcntl
import os
import signal
import threading
import time

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
    name = tmp_path / lock.LOCK
    programs.wait_until(lambda: name.exists() and name.read_text(), process)
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


def test_one_who_only_looks_does_not_keep_a_process_out(tmp_path):
    with (tmp_path / lock.LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as `is_claimed` does for a moment

        def let_go():
            time.sleep(0.1)
            fcntl.flock(file, fcntl.LOCK_UN)

        looks = threading.Thread(target=let_go)
        looks.start()
        with lock.claimed(tmp_path):
            looks.join()


def test_a_process_that_has_just_taken_the_folder_is_named(tmp_path):
    path = tmp_path / lock.LOCK
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def write_name():
            time.sleep(0.1)
            file.write("process 7 on here")
            file.flush()

        writes = threading.Thread(target=write_name)
        writes.start()
        with pytest.raises(errors.InputError, match="process 7 on here is working in"):
            lock.claimed(tmp_path).__enter__()
        writes.join()


def test_nobody_holds_a_folder_without_a_lock(tmp_path):
    assert not lock.is_claimed(tmp_path)


def test_where_locks_are_not_to_be_had_it_goes_on(monkeypatch, tmp_path):
    def without(*_):
        raise OSError(lock._WITHOUT_LOCKS[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", without)
    with lock.claimed(tmp_path), lock.claimed(tmp_path):
        pass


def test_a_file_system_without_locks_locks_nothing_and_other_errors_are_raised(
    tmp_path, monkeypatch
):
    def fail(number):
        def flock(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    fail(errno.ENOLCK)
    with lock.claimed(tmp_path):
        assert not lock.is_claimed(tmp_path)
    fail(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        lock.is_claimed(tmp_path)
