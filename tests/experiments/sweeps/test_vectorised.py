"""Runs that are trained together: which, in which order, and what a stop leaves."""

import os
import signal
import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import lock
from experiments.sweeps import vectorised
from experiments.sweeps.vectorised_files import Kept
from tests.support import small_sweeps
from triplet_jax.devices import signals
from triplet_jax.training.train_state import TrainState


def state_of(step, weights):
    """The state of several runs, of one weight each."""
    params = {"w": jnp.asarray(weights)[:, None]}
    return TrainState(jnp.int32(step), params, {}, {}, {}, (), None)


@pytest.fixture
def trained(monkeypatch):
    """The seeds of each group that is trained, by which its runs are done."""
    groups = []

    def train(group, stop, show):
        assert all(lock.is_claimed(run.folder) for run in group.pending)
        groups.append([run.seed for run in group.pending])
        for run in group.pending:
            small_sweeps.finish(run, 0.9, 0.9)

    monkeypatch.setattr(vectorised._Group, "train", train)
    return groups


def test_runs_that_were_begun_together_go_on_beside_a_new_one(tmp_path):
    begun = small_sweeps.of_one_arm(tmp_path, 2)
    vectorised._fresh(begun)
    parts = vectorised._as_begun(small_sweeps.of_one_arm(tmp_path, 3))
    assert [[run.seed for run in part] for part in parts] == [[0, 1], [2]]


def test_what_is_left_of_a_group_goes_on_as_the_group(tmp_path, trained):
    runs = small_sweeps.of_one_arm(tmp_path, 3)
    folder, _ = vectorised._fresh(runs)
    small_sweeps.finish(runs[1], 0.9, 0.9)
    assert vectorised._as_begun(runs) == [runs]
    group = vectorised._Group(runs)
    assert (group._folder, group._members, group.pending) == (folder, runs, [runs[0], runs[2]])
    vectorised.train_all(runs, None, lambda: None)
    assert trained == [[0, 2]]
    vectorised.train_all(runs, None, lambda: None)
    assert len(trained) == 1  # nothing is left
    assert len([*tmp_path.glob("groups/*")]) == 1


def test_runs_that_ended_by_another_engine_make_no_group(tmp_path, trained):
    (run,) = small_sweeps.of_one_arm(tmp_path, 1)
    small_sweeps.finish(run, 0.9, 0.9)
    vectorised.train_all([run], None, lambda: None)
    assert not trained and not (tmp_path / "groups").exists()


def test_after_a_stop_no_other_group_begins(tmp_path, monkeypatch):
    def train(group, stop, show):
        trained.append([(run.arm, run.seed) for run in group.pending])
        os.kill(os.getpid(), signal.SIGTERM)

    trained, arms = [], (("one", {}), ("two", {"mining.miner": "batch_hard"}))
    runs = small_sweeps.planned(tmp_path, arms=arms, seeds=(0, 1))
    monkeypatch.setattr(vectorised._Group, "train", train)
    vectorised.train_all(runs, None, lambda: None)
    assert trained == [[("one", 0), ("one", 1)]]


def test_a_run_that_was_not_finite_is_tried_alone_and_once_more_from_the_start(
    tmp_path, monkeypatch
):
    def train(group, stop, show):
        again.append((group._folder, [run.seed for run in group._members], wrong.exists()))

    again, runs = [], small_sweeps.of_one_arm(tmp_path, 3)
    small_sweeps.finish(runs[2], 0.9, 0.9)
    monkeypatch.setattr(vectorised._Group, "train", train)
    stop = signals.Stop()
    group, alone = vectorised._Group(runs), vectorised._Group(runs[:1])
    wrong = alone._folder / "checkpoints"
    wrong.mkdir()
    weights = state_of(20, [0.5, np.nan])
    assert not group._retries(weights, stop, None)
    assert [seeds for _, seeds, _ in again] == [[1]]
    assert not alone._retries(state_of(20, [np.inf]), stop, None)
    assert again[1:] == [(alone._folder, [0], False)]
    small_sweeps.finish(runs[0], 0.9, 0.9)
    small_sweeps.finish(runs[1], 0.9, 0.9)
    assert group._retries(weights, stop, None)
    assert len(again) == 2


class Steps:
    """Runs whose weights grow by their numbers at each step; a signal comes after `last`."""

    def __init__(self, stop, last, of_runs):
        self.stop, self.last, self.step, self.of_runs = stop, last, 0, np.asarray(of_runs)

    def take_step(self):
        self.step += 1
        if self.step == self.last:
            self.stop.signal = signal.SIGTERM
        return {"loss": self.of_runs * self.step, "telemetry": {"norm": self.of_runs}}

    @property
    def state(self):
        return state_of(self.step, self.of_runs * self.step)

    def of_run(self, i):
        return i


class Recorder:
    """Keeps what it is told, in place of the files of a run or of its checkpoints."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *given, **more: self.told.append((name, *given, *more.values()))


def test_a_stop_between_evaluations_saves_the_step_before_it(tmp_path):
    config, stop = small_sweeps.of_one_arm(tmp_path, 1)[0].config, signals.Stop()
    first = types.SimpleNamespace(config=config, validate=lambda run: {"map_at_r": 0.5 + run})
    kept = Kept(state_of(0, [0.0, 0.0]), config)
    saved, loggers, together = Recorder(), [Recorder(), Recorder()], Steps(stop, 25, [1.0, 2.0])
    vectorised._Group._loop(None, first, kept, together, saved, loggers, Recorder(), stop)
    (_, at, tree), (_, last, stopped) = saved.told
    assert (at, last, together.step) == (20, 25, 25)
    np.testing.assert_array_equal(tree["state"].params["w"], [[20.0], [40.0]])
    np.testing.assert_array_equal(stopped["state"].params["w"], [[25.0], [50.0]])
    np.testing.assert_array_equal(stopped["scores"], [0.5, 1.5])
    *before, (_, rest, is_written) = loggers[1].told
    assert [step for step, _ in rest] == [21, 22, 23, 24, 25] and not is_written
    assert rest[0][1] == {"loss": 42.0}
    assert [what for what, *_ in before].count("validation") == 1
    assert ("validation", 20, {"map_at_r": 1.5}) in before
