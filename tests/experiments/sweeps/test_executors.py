"""Engines of a sweep, run by run: what is done, another's, failed, or to be shown."""

import io
import json
import signal
import subprocess
import sys

import jax
import ml_collections
import pytest

from experiments.config import saved_configs
from experiments.run import config_json, lock
from experiments.sweeps import child, executors, vectorised_processes
from experiments.sweeps.board import Board
from tests.support import small_sweeps
from triplet_jax import errors
from triplet_jax.runs import health, stopwatch

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
    monkeypatch.setattr(vectorised_processes, "_PATIENCE", 0.0)
    run = small_sweeps.a_run(tmp_path)
    with (
        lock.claimed(run.folder),
        pytest.raises(errors.InputError, match=r"is working in .*seed0"),
    ):
        executors.ENGINES[engine]([run], ALONE, lambda: None)
    assert run.state == "waiting"


def started_as(monkeypatch, scripts):
    """Processes of a sweep run these scripts, by their seeds; returns those that were started."""
    started = []

    def start(folder, log):
        script = scripts[int(folder.name.removeprefix("seed"))]
        started.append(subprocess.Popen(["sh", "-c", script], stdout=log))
        return started[-1]

    monkeypatch.setattr(child, "start", start)
    return started


@pytest.mark.parametrize(
    ("ending", "words"),
    [("echo error: the disk is full; exit 3", "the disk is full"), ("kill -9 $$", "SIGKILL")],
)
def test_a_process_that_lacks_something_has_not_failed(
    ending, words, tmp_path, monkeypatch, capsys
):
    run = small_sweeps.a_run(tmp_path)
    started_as(monkeypatch, [ending])
    executors.processes([run], ALONE, lambda: None)
    assert words in capsys.readouterr().out
    assert run.state == "waiting"


def test_a_process_that_fails_stops_no_other(tmp_path, monkeypatch):
    runs, seen = small_sweeps.of_one_arm(tmp_path, 3), []
    waits = f"until test -s {runs[2].folder}/log.txt; do sleep 0.05; done"
    started = started_as(monkeypatch, ["echo error: no room; exit 1", waits, "echo trained"])

    def show():
        for run in runs[1:]:
            small_sweeps.finish(run, 0.9, 0.9)
        seen.append(len(started))

    executors.processes(runs, ml_collections.ConfigDict({"processes": 2}), show)
    assert seen[0] == 2 and seen[-1] == len(seen) == 3  # the third had to wait for a place
    assert [run.state for run in runs] == ["failed", "done", "done"]
    assert runs[0].error_file.read_text() == "no room\n"
    assert (runs[2].folder / "log.txt").read_text() == "trained\n"
    assert config_json.refused(runs[2].folder, runs[2].config) == ""


def test_a_process_that_was_stopped_ends_the_others(tmp_path, monkeypatch):
    runs = small_sweeps.of_one_arm(tmp_path, 3)
    started = started_as(monkeypatch, ["exit 0", "exec sleep 60", "exit 0"])
    executors.processes(runs, ml_collections.ConfigDict({"processes": 2}), lambda: None)
    assert [process.returncode for process in started] == [0, -signal.SIGTERM]
    assert [run.state for run in runs] == ["waiting"] * 3


def test_runs_here_are_trained_in_turn_until_somebody_asks_to_stop(tmp_path, monkeypatch):
    runs, trained, shown = small_sweeps.of_one_arm(tmp_path, 4), [], []
    small_sweeps.finish(runs[0], 0.9, 0.9)

    def train(config, folder, goes_on):
        trained.append((config.seed, lock.is_claimed(folder)))
        print("trained")
        if config.seed == 1:
            small_sweeps.finish(runs[1], 0.9, 0.9)

    monkeypatch.setattr(executors.training, "train", train)
    executors.ENGINES["here"](runs, None, lambda: shown.append(runs[1].state))
    assert trained == [(1, True), (2, True)]
    assert shown == ["done"]
    assert (runs[1].folder / "log.txt").read_text() == "trained\n"


def test_seconds_a_run_are_those_of_all_its_processes(tmp_path):
    old, new = small_sweeps.a_run(tmp_path / "old"), small_sweeps.a_run(tmp_path / "new")
    for run in (old, new):
        result = {"wall_seconds_of_this_process": 8.0, "runs_trained_together": 4}
        (run.folder / "result.json").write_text(json.dumps(result))
    stopwatch.write(new.folder / "seconds.json", [30.0, 12.5])
    assert (old.seconds(), new.seconds()) == (2.0, 42.5)


def test_a_process_trains_by_the_config_in_its_folder_and_all_it_says_is_kept(
    tmp_path, monkeypatch
):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nshift 2\necho "$@"\necho a warning >&2\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with (tmp_path / "log.txt").open("w") as log:
        assert child.start(tmp_path, log).wait() == 0
    config = f"--config={saved_configs.__file__}:{tmp_path}/config.json"
    said = f"{config} --workdir={tmp_path}\na warning\n"
    assert (tmp_path / "log.txt").read_text() == said


def test_the_last_word_is_the_whole_last_error(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("error: of an earlier try\nstep 20\nerror: another config:\n  margin\nGive it.")
    assert child.last_word(tmp_path, 2) == "another config:\n  margin\nGive it."
    log.write_text("Traceback\nKeyError: 3")
    assert child.last_word(tmp_path, 1) == "KeyError: 3"


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
        errors.InputError("batch.classes=9 are more than there are."),
        health.NotFiniteError("Step 5 is not finite: loss=nan."),
        jax.errors.JaxRuntimeError("INTERNAL: a device is gone"),
    ],
)
def test_a_run_fails_alone_by_an_error_of_its_own(error, tmp_path, monkeypatch):
    def train(*_):
        raise error

    monkeypatch.setattr(executors.training, "train", train)
    run = small_sweeps.a_run(tmp_path)
    if "INTERNAL" in str(error):  # may be another run's as well
        with pytest.raises(jax.errors.JaxRuntimeError, match="a device is gone"):
            executors.ENGINES["here"]([run], None, lambda: None)
        assert run.state == "waiting"
    else:
        executors.ENGINES["here"]([run], None, lambda: None)
        assert run.state == "failed" and run.error_file.read_text() == f"{error}\n"
