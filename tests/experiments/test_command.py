"""What the programs share: flags of XLA, how errors end a program, and refusals of flags."""

import errno
import importlib
import os
import signal
import sys
import types

import jax
import pytest
from ml_collections import config_flags

import experiments
from experiments import command
from tests.support import programs
from triplet_jax import errors
from triplet_jax.runs import health


def test_flags_of_xla_are_set_and_those_of_the_user_come_last(monkeypatch):
    # Also a reminder: the flags are for versions of jax that are known to take them.
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_DEFAULT")
    command.use_xla_flags()
    *ours, users = os.environ["XLA_FLAGS"].split()
    assert any(flag.endswith("=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED") for flag in ours)
    assert users.endswith("=CPU_SCHEDULER_TYPE_DEFAULT")


DISK = OSError(errno.ENOSPC, "No space left on device", "/runs/a.npz")
GONE = jax.errors.JaxRuntimeError("UNAVAILABLE: a peer is gone\nmore lines")


@pytest.mark.parametrize(
    ("error", "others", "message", "status"),
    [
        (errors.InputError("--split is unknown."), False, "--split is unknown.", 2),
        (health.NotFiniteError("Step 5 is not finite."), False, "Step 5 is not finite.", 1),
        (errors.LostError("A worker has died."), False, "A worker has died. Again.", 3),
        (KeyboardInterrupt("SIGTERM"), False, "stopped by SIGTERM. Again.", 3),
        (DISK, False, "/runs/a.npz cannot be used: No space left on device. Free some", 3),
        (FileNotFoundError(2, "No such file", "/a"), False, "/a cannot be used: No such file.", 1),
        (GONE, True, "another process of this run has ended, or cannot be reached (UNAVAIL", 3),
        (jax.errors.JaxRuntimeError("Out of memory"), True, "a device has too little memory: ", 1),
    ],
)
def test_an_error_ends_a_program_by_what_it_says(error, others, message, status, monkeypatch):
    monkeypatch.setattr(command, "_go_on", "Again.")
    monkeypatch.setattr(command.processes, "several", lambda: others)
    said, found = command._ending(error)
    assert said.startswith(message) and "\n" not in said
    assert found == status


@pytest.mark.parametrize("error", [KeyError("x"), OSError("odd"), ValueError("shapes"), GONE])
def test_a_defect_keeps_its_traceback(error):
    assert command._ending(error) is None


def test_only_reads_that_end_late_are_left_out(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "__unraisablehook__", printed.append)
    late, other = (
        types.SimpleNamespace(exc_value=RuntimeError(said))
        for said in ("Event loop is closed", "Event loop is stopped")
    )
    command._leave_out_late_reads(late)
    command._leave_out_late_reads(other)
    assert printed == [other]


def test_a_program_of_one_process_refuses_the_flags_of_several():
    for flag in ("--coordinator=a:1", "--processes=2", "--process=0"):
        done = programs.run("convert", flag)
        programs.refused(done, "--coordinator, --processes and --process are of train, evaluate")


@pytest.mark.parametrize(
    ("given", "said", "message"),
    [
        (
            "--config.engine=here",
            "'engine' is no field",
            "config field='engine' is not known here.",
        ),
        ("--config.run.loss.margn=1", "'margn'", "Did you mean 'loss.margin'"),
        ("--config.loss.margn=1", "'width' is no field", None),
        ("--workdir=margn", "'margn'", None),
    ],
)
def test_of_flags_that_are_given_the_unknown_field_is_named(given, said, message):
    found = command._unknown_field(["train", "--config=a.py", given], said)
    assert message in found if message else found is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "configs/sweeps/squared.py",
            "config of a sweep, for experiments.sweep; experiments.train",
        ),
        ("configs/tune/digits.py", "this is the config of a study, for experiments.tune"),
        ("configs/digit.py", "^there is no such file. Give one, such as configs/digits.py"),
        ("configs", "configs cannot be read: Is a directory"),
        ("configs/saved.py:none.json", "^none.json cannot be read: No such file"),
        ("configs/saved.py:pyproject.toml", "ValueError: pyproject.toml is no JSON: Expecting"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_config_that_is_not_there_or_of_another_kind_is_refused(path, message):
    """At once, not when its first field is read."""
    parser = command._WithOwnKnobs(config_flags.config_flags.ConfigFileFlagParser("config"), "run")
    with pytest.raises(ValueError, match=message):
        parser.parse(path)


def test_a_file_is_refused_before_it_is_computed_where_it_cannot_be_written(tmp_path, monkeypatch):
    def refused(value, words):
        flag = types.SimpleNamespace(name="output", value=value and str(value))
        with pytest.raises(errors.InputError, match=words):
            command.file_to_write(flag, ".npz", ".lance")

    (tmp_path / "folder.npz").mkdir()
    refused(None, "--output is missing: the .npz or .lance file to write")
    for wrong in ("a.txt", "folder.npz", "none/a.npz"):
        refused(tmp_path / wrong, r"must be a file named \*.npz or \*.lance, in a folder that exis")
    flag = types.SimpleNamespace(name="output", value=str(tmp_path / "a.npz"))
    assert command.file_to_write(flag, ".npz") == tmp_path / "a.npz"
    monkeypatch.setattr(command.os, "access", lambda path, mode: path != tmp_path)
    refused(tmp_path / "a.npz", "a.npz cannot be written: its folder is read-only")


JOINING = """
import os, signal, sys
from experiments import command
command._go_on = "Again."
command.signals.interrupt_on_signals()
with command._saying_when_others_are_lost():
    os.write(2, b"jax's own dump")
    os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGABRT, "another process of this run has ended"),
        (signal.SIGTERM, "stopped by SIGT"),
    ],
)
def test_a_process_that_cannot_join_the_others_says_so_alone(number, words):
    done = programs.run_code(JOINING, int(number))
    programs.refused(done, words, "Again.\n", status=3)
    assert done.stderr.count("\n") == 1 and "dump" not in done.stderr


JOINED = """
import os, signal
from experiments import command
command.processes.several = lambda: True
command.signals.share_sigterm = lambda: print("SIGTERM is shared")
with command._saying_when_others_are_lost():
    pass
print("joined", flush=True)
os.kill(os.getpid(), signal.SIGABRT)
"""


def test_a_process_that_has_joined_the_others_says_when_one_is_lost():
    done = programs.run_code(JOINED)
    programs.refused(done, "another process of this run has ended", status=3)
    assert done.stdout == "SIGTERM is shared\njoined\n"


def test_the_clone_is_first_on_the_path(monkeypatch):
    """So that no file in the working directory is taken for a config of the clone."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    importlib.reload(experiments)
    assert sys.path[:2] == [str(programs.ROOT), ""]
    importlib.reload(experiments)
    assert sys.path[:2] == [str(programs.ROOT), ""]
