"""The engines of a study: which runs they train, and how trials end that are given up or broken."""

import types

import jax
import optuna
import pytest

from experiments.sweeps import executors, vectorised
from experiments.tuning import search as searching
from experiments.tuning import space as spaces
from experiments.tuning import training
from experiments.tuning.trials import trial_at
from tests.support import small_studies, small_sweeps

STEPS = (20, 40, 60)


def put_training(monkeypatch, stops=()):
    """Replaces the training of a run by three validations, whose scores are their steps.

    It stops at `stops`, pairs of a run's folder and a step, and removes them. Returns the rows.
    """
    rows, stops = [], {*stops}

    def train(config, folder, goes_on):
        run = types.SimpleNamespace(folder=folder, config=config)
        name = str(folder.relative_to(folder.parents[1]))
        for step in STEPS:
            rows.append((name, step))
            go_on = goes_on is None or goes_on(step, {"map_at_r": step, "precision_at_1": 0.5})
            if not go_on or (name, step) in stops:
                stops.discard((name, step))
                return
        small_sweeps.finish(run, 60, 0.5)

    monkeypatch.setattr(executors.training, "train", train)
    return rows


def search(folder, **fields):
    study = small_studies.made(**fields)
    searching.search(study, spaces.parse(study.space), folder)
    return small_studies.shared(study, folder)


def test_a_trial_that_the_pruner_gives_up_ends_after_a_validation(tmp_path, monkeypatch, capsys):
    rows = put_training(monkeypatch)
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda *_: True)
    shared = search(tmp_path, trials=1, pruner="median")
    (pruned,) = shared.records("PRUNED")
    assert pruned.intermediate_values == {20: 20}
    assert rows == [("trial000/seed0", 20)]
    printed = capsys.readouterr().out
    assert "trial 0: pruned" in printed and "No trial was trained to the end." in printed


def test_a_study_that_is_stopped_goes_on_with_the_trial(tmp_path, monkeypatch, capsys):
    rows = put_training(monkeypatch, stops=[("trial000/seed0", 40)])
    stopped = search(tmp_path, trials=2, pruner="median")
    assert "stopped. Run the same command again to go on" in capsys.readouterr().out
    assert [record.number for record in stopped.records("RUNNING")] == [0]
    assert not (tmp_path / "trials.csv").exists()
    done = search(tmp_path, trials=2, pruner="median").records("COMPLETE")
    assert [record.intermediate_values for record in done] == [{20: 20, 40: 40, 60: 60}] * 2
    assert [name for name, _ in rows] == ["trial000/seed0"] * 5 + ["trial001/seed0"] * 3


def test_a_trial_whose_run_broke_is_not_trained_with_other_seeds(tmp_path, monkeypatch):
    study = small_studies.made(trials=2, seeds=(0, 1))
    shared, rows = small_studies.shared(study, tmp_path), put_training(monkeypatch)
    with shared.claim(2) as trials:
        trials[0].runs[0].fail("the loss is not finite")
        training.train(trials, shared, study)
        assert training.tell(trials, shared, study.metric)
    assert {name for name, _ in rows} == {"trial001/seed0", "trial001/seed1"}
    assert [record.state.name for record in shared.records()] == ["FAIL", "COMPLETE"]


@pytest.fixture
def trials(tmp_path):
    """Three trials, of which the first and the last differ only in a number, and their study."""
    study = small_studies.made(trials=3, engine="vectorised")
    points = [(1e-3, "semi_hard"), (1e-3, "batch_hard"), (2e-3, "semi_hard")]
    names, space = [name for name, _ in study.space], spaces.parse(study.space)
    return [
        trial_at(study, space, dict(zip(names, point, strict=True)), number, tmp_path)
        for number, point in enumerate(points)
    ], study


def test_trials_that_differ_in_numbers_train_together_and_fail_together(trials, monkeypatch):
    def train_all(members, study, show):
        groups.append([run.arm for run in members])
        if len(members) == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
        small_sweeps.finish(members[0], 0.5, 0.5)

    groups, (some, study) = [], trials
    monkeypatch.setattr(vectorised, "train_all", train_all)
    training.train(some, None, study)
    assert groups == [["trial000", "trial002"], ["trial001"]]
    assert [trial.error for trial in some] == ["RESOURCE_EXHAUSTED", "", "RESOURCE_EXHAUSTED"]
    assert some[1].is_done


def test_after_a_stop_no_other_group_is_trained(trials, monkeypatch):
    groups, (some, study) = [], trials
    monkeypatch.setattr(vectorised, "train_all", lambda members, *_: groups.append(members))
    training.train(some, None, study)
    assert len(groups) == 1
