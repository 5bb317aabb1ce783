"""Groups of runs in processes of their own: their cores, their errors, and their end."""

import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import types

import ml_collections
import pytest

from experiments.run import lock
from experiments.sweeps import vectorised_processes
from tests.support import small_sweeps
from triplet_jax import mining
from triplet_jax.devices import signals

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system assigns no cores to processes"
)


def in_two_groups(tmp_path):
    """A sweep of two runs, each a group of its own."""
    arms = (("one", {}), ("two", {"model.dim": 4}))
    return small_sweeps.planned(tmp_path, arms=arms, seeds=(0,))


@pytest.mark.parametrize(
    ("cores", "count", "shares"),
    [
        (6, 2, [{0, 1, 2}, {3, 4, 5}]),
        (5, 2, [{0, 1, 2}, {3, 4}]),
        (2, 4, [{0}, {1}]),
        (1, 2, [{0}]),
        (4, 1, [{0, 1, 2, 3}]),
        (4, 0, [{0, 1, 2, 3}]),
    ],
)
def test_processes_share_the_cores(cores, count, shares, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert vectorised_processes._shares(count) == shares


def test_devices_are_not_shared(monkeypatch):
    monkeypatch.setattr(vectorised_processes.jax, "default_backend", lambda: "gpu")
    assert vectorised_processes._shares(2) == []


def test_what_ends_a_group_is_raised_here(tmp_path):
    first, _ = in_two_groups(tmp_path)
    first.workdir.joinpath("runs").write_text("no folder")  # so that the run cannot have one
    with (
        vectorised_processes._working([{min(os.sched_getaffinity(0))}]) as (worker,),
        pytest.raises(NotADirectoryError, match="seed0") as raised,
    ):
        worker.take([first])
        worker.is_through()
    assert "in train_all" in "".join(raised.value.__notes__)
    assert worker.process.exitcode == 0


def test_an_error_that_cannot_be_sent_comes_as_its_text(tmp_path, monkeypatch):
    class Local(Exception):
        """Which no other process can name."""

    def fail(*_):
        raise Local("its message")

    monkeypatch.setattr(vectorised_processes.vectorised, "train_all", fail)
    error = vectorised_processes._error_of([])
    assert type(error) is RuntimeError
    assert "in fail" in str(error) and "its message" in str(error)


def test_a_process_that_ends_by_its_own_error_ends_the_sweep():
    with pytest.raises(RuntimeError, match="trained runs ended: exit status 1"):
        vectorised_processes._report(1)


@pytest.mark.parametrize("before", [True, False])
def test_a_killed_process_leaves_its_group_to_the_next_start(tmp_path, capsys, before):
    first, _ = in_two_groups(tmp_path)
    with vectorised_processes._working([os.sched_getaffinity(0)]) as (worker,):
        if not before:
            worker.take([first])
        worker.process.kill()
        worker.process.join()
        if before:
            worker.take([first])
        assert not worker.is_through()
    assert capsys.readouterr().out == (
        "a process that trained runs was ended by SIGKILL\n"
        "If that was for lack of memory, give --config.processes=1.\n"
    )
    assert first.state == "waiting"


class Trained:
    """A worker that ends each group as soon as it has it, unless the run's arm is "stopped"."""

    def __init__(self):
        self.pipe, self._theirs = multiprocessing.Pipe()
        self.group, self.seen = [], []

    def take(self, group):
        self.group = group
        self.seen += [run.arm for run in group]
        self._theirs.send(None)

    def is_through(self):
        self.pipe.recv()
        (run,), self.group = self.group, []
        return run.arm != "stopped"


def test_groups_go_to_whoever_is_free_until_one_was_stopped(tmp_path):
    one, two = in_two_groups(tmp_path)
    shown, workers, stop = [], [Trained(), Trained()], signals.Stop()

    def train(*groups):
        waiting = [[run] for run in groups]
        vectorised_processes._train_in_processes(waiting, workers, stop, lambda: shown.append(1))
        return waiting

    assert train(one, two, one) == []
    assert sorted(workers[0].seen + workers[1].seen) == ["one", "one", "two"]
    assert shown
    stopped = dataclasses.replace(one, arm="stopped")
    assert train(stopped, two, one) == [[one]]
    stop.signal = signal.SIGTERM
    assert train(one) == [[one]]


def test_one_process_trains_here(tmp_path, monkeypatch):
    planned, seen = in_two_groups(tmp_path), []
    monkeypatch.setattr(
        vectorised_processes.vectorised, "train_all", lambda runs, *_: seen.extend(runs)
    )
    alone = ml_collections.ConfigDict({"processes": 1})
    vectorised_processes.train_all(planned, alone, lambda: None)
    assert seen == planned


@pytest.mark.parametrize(
    "kept_together",
    [
        {"mining.miner": "half"},
        {
            "model.name": "resnet18",
            "model.freeze": "backbone",
            "model.weights": "some.npz",
            "augment.shift": 0.0,
            "augment.rotate": 0.0,
            "augment.scale": 0.0,
        },
    ],
)
def test_runs_stay_in_one_process_where_another_would_lack_or_repeat_something(
    kept_together, tmp_path, monkeypatch
):
    half = functools.partial(mining.quantile, hardness=0.5)
    monkeypatch.setitem(mining.MINERS, "half", half)
    config = ml_collections.ConfigDict(in_two_groups(tmp_path)[0].config)
    config.update_from_flattened_dict(kept_together)
    run = types.SimpleNamespace(config=config)
    assert not vectorised_processes._may_part([in_two_groups(tmp_path), [run]])
    assert vectorised_processes._may_part([in_two_groups(tmp_path)])


def test_runs_that_another_process_still_saves_are_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vectorised_processes, "_PAUSE", 0.01)
    first, second = in_two_groups(tmp_path)
    first.folder.mkdir(parents=True)
    stop = signals.Stop()
    with lock.claimed(first.folder):
        threading.Timer(0.1, lambda: setattr(stop, "signal", signal.SIGTERM)).start()
        vectorised_processes._wait_until_saved([[second], [first]], stop)
    assert stop.signal
    assert capsys.readouterr().out.startswith("waiting for another process")
    vectorised_processes._wait_until_saved([[first, second]], signals.Stop())
    assert capsys.readouterr().out == ""
