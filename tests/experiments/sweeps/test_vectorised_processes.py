"""Groups of runs in processes of their own: their cores, their errors, and their end."""

import os

import ml_collections
import pytest

from experiments.sweeps import vectorised_processes
from tests.support import small_sweeps

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
    assert capsys.readouterr().out == "a process that trained runs: ended by SIGKILL\n"
    assert first.state == "waiting"


def test_one_process_trains_here(tmp_path, monkeypatch):
    planned, seen = in_two_groups(tmp_path), []
    monkeypatch.setattr(
        vectorised_processes.vectorised, "train_all", lambda runs, *_: seen.extend(runs)
    )
    alone = ml_collections.ConfigDict({"processes": 1})
    vectorised_processes.train_all(planned, alone, lambda: None)
    assert seen == planned
