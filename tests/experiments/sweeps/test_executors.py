"""Engines of a sweep, run by run: what is done, another's, failed, or to be shown."""

import io
import json
import subprocess
import sys

import jax
import ml_collections
import pytest

from experiments.run import lock
from experiments.sweeps import child, executors, vectorised
from experiments.sweeps.board import Board
from tests.support import small_sweeps
from triplet_jax import errors
from triplet_jax.runs import stopwatch

ALONE = ml_collections.ConfigDict({"processes": 1})


def test_a_run_that_was_evaluated_before_its_end_is_not_done(tmp_path):
    run = small_sweeps.a_run(tmp_path)
    (run.folder / "metrics.jsonl").write_text('{"step": 20}\n')
    for trained, state in ((20, "started"), (60, "done")):
        (run.folder / "result.json").write_text(json.dumps({"trained_steps": trained}))
        assert run.state == state
    (run.folder / "result.json").write_text("{}")  # of an earlier version
    assert run.state == "done"


def test_a_terminal_shows_all_runs_in_one_table(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    done, failed, started, *waiting = small_sweeps.planned(tmp_path)
    with Board([done, failed, started, *waiting], "map_at_r") as board:
        for run in (done, started):
            run.folder.mkdir(parents=True)
            (run.folder / "metrics.jsonl").write_text('{"step": 20}\n')
        result = {"trained_steps": 60, "embedding": {"retrieval": {"map_at_r": 0.123456}}}
        (done.folder / "result.json").write_text(json.dumps(result))
        failed.fail("the loss is not finite")
        board.show()
    last = terminal.getvalue().rpartition("setting")[2]  # drawn anew, over the one before
    for cell in ("0.1235", "failed: the loss", "20/60", done.arm, f"2/{len(waiting) + 3} runs"):
        assert cell in last
    assert last.count("waiting") == len(waiting)
    assert "ETA" in last


@pytest.mark.parametrize("engine", ["here", "vectorised"])
def test_a_run_that_another_process_trains_is_left_to_it(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(vectorised, "_PATIENCE", 0.0)
    run = small_sweeps.a_run(tmp_path)
    with (
        lock.claimed(run.folder),
        pytest.raises(errors.InputError, match=r"is working in .*seed0"),
    ):
        executors.ENGINES[engine]([run], ALONE, lambda: None)
    assert run.state == "waiting"


@pytest.mark.parametrize(
    ("ending", "words"),
    [("echo error: the disk is full; exit 3", "the disk is full"), ("kill -9 $$", "SIGKILL")],
)
def test_a_process_that_lacks_something_has_not_failed(
    ending, words, tmp_path, monkeypatch, capsys
):
    run = small_sweeps.a_run(tmp_path)

    def start(run):
        with (run.folder / "log.txt").open("w") as log:
            return subprocess.Popen(["sh", "-c", ending], stdout=log)

    monkeypatch.setattr(executors, "_start", start)
    executors.processes([run], ALONE, lambda: None)
    assert words in capsys.readouterr().out
    assert run.state == "waiting"


def test_seconds_a_run_are_those_of_all_its_processes(tmp_path):
    old, new = small_sweeps.a_run(tmp_path / "old"), small_sweeps.a_run(tmp_path / "new")
    for run in (old, new):
        result = {"wall_seconds_of_this_process": 8.0, "runs_trained_together": 4}
        (run.folder / "result.json").write_text(json.dumps(result))
    stopwatch.write(new.folder / "seconds.json", [30.0, 12.5])
    assert (old.seconds(), new.seconds()) == (2.0, 42.5)


def test_the_last_word_is_the_whole_last_error(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("error: of an earlier try\nstep 20\nerror: another config:\n  margin\nGive it.")
    assert child.last_word(tmp_path, 2) == "another config:\n  margin\nGive it."
    log.write_text("Traceback\nKeyError: 3")
    assert child.last_word(tmp_path, 1) == "KeyError: 3"


def test_a_run_for_which_memory_lacks_fails_alone(tmp_path, monkeypatch):
    def train(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(executors.training, "train", train)
    run = small_sweeps.a_run(tmp_path)
    executors.ENGINES["here"]([run], None, lambda: None)
    assert run.state == "failed" and "Out of memory" in run.error_file.read_text()


def test_runs_that_were_begun_together_go_on_beside_a_new_one(tmp_path):
    begun = small_sweeps.of_one_arm(tmp_path, 2)
    (members,) = vectorised.groups(begun)
    vectorised._fresh(members)
    more = small_sweeps.of_one_arm(tmp_path, 3)
    (members,) = vectorised.groups(more)
    parts = vectorised._as_begun(members)
    assert [[run.seed for run in part] for part in parts] == [[0, 1], [2]]
