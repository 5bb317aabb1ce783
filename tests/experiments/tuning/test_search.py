"""Studies from their first trial to the files that they write."""

import importlib.util
import json
import signal

import numpy as np
import optuna
import pandas as pd
import pytest

from configs.tune import base
from experiments.config import check, completion, settings
from experiments.run import data_json
from experiments.sweeps import plan, vectorised
from experiments.tuning import search as searching
from experiments.tuning import space as spaces
from experiments.tuning import studies, trials
from tests.support import programs, small_studies, small_sweeps, stops
from triplet_jax import errors
from triplet_jax.runs import files


def search(study, workdir):
    workdir.mkdir(exist_ok=True)
    searching.search(study, spaces.parse(study.space), workdir)


def opened(path):
    """What a config file gives."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def table(workdir):
    return pd.read_csv(workdir / "trials.csv")


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A study of six trials with two seeds, and its folder."""
    study = small_studies.made(seeds=(0, 2))
    study.run.schedules.margin = base.defaults.schedule("loss.margin", start=0.1, end=0.4)
    small_studies.put_engine(monkeypatch)
    search(study, tmp_path)
    return study, tmp_path


def test_the_best_is_the_best_on_the_validation_split(finished):
    _, workdir = finished
    of_trials = table(workdir)
    assert (of_trials.state == "complete").all()
    rates = of_trials["optimizer.learning_rate"]
    np.testing.assert_allclose(of_trials.value, 1 - np.abs(rates - 3e-3))
    result = json.loads((workdir / "result.json").read_text())
    assert result["best"]["trial"] == of_trials.value.idxmax()
    assert result["value"] == "validation map_at_r"
    budget = {"trials": 6, "complete": 6, "seeds": [0, 2], "steps_of_a_run": 60, "steps": 720}
    assert budget.items() <= result["budget"].items()


def test_the_best_config_is_that_of_its_trial(finished):
    study, workdir = finished
    number = json.loads((workdir / "result.json").read_text())["best"]["trial"]
    shared = small_studies.shared(study, workdir)
    (record,) = [one for one in shared.records() if one.number == number]
    of_trial = shared.trial(record).runs[0].config
    best = opened(workdir / "best.py")
    assert settings.flat(completion.completed(best)) == settings.flat(of_trial)
    check.check(best)
    assert "6 trials (6 complete) of 60 steps" in (workdir / "best.py").read_text()


def test_the_sweep_that_confirms_has_seeds_of_its_own(finished):
    study, workdir = finished
    sweep = opened(workdir / "confirm.py")
    assert sweep.seeds == (1, 3, 4, 5, 6)
    assert "6 trials" in sweep.source
    runs = {(run.arm, run.seed): run.config for run in plan.plan(sweep, workdir / "confirm")}
    assert len(runs) == 10
    before = settings.flat(trials.config_at(study, spaces.Space(()), {}, 1))
    assert settings.flat(runs["default", 1]) == before
    best = settings.flat(completion.completed(opened(workdir / "best.py")))
    assert settings.flat(runs["best", 3]) == best | {"seed": 3}
    assert best["optimizer.learning_rate"] != before["optimizer.learning_rate"]


def test_the_sweep_that_confirms_compares_by_the_metric_of_the_study(tmp_path, monkeypatch):
    small_studies.put_engine(monkeypatch)
    search(small_studies.made(trials=3, metric="precision_at_1"), tmp_path)
    assert opened(tmp_path / "confirm.py").metric == "precision_at_1"


def test_a_study_that_is_killed_twice_ends_with_all_its_trials(tmp_path, monkeypatch):
    study = small_studies.made(trials=7)

    class Killed(BaseException):
        pass

    def killed_at(numbers):
        def before(run):
            if run.arm in numbers:
                raise Killed

        return before

    ended = []
    for numbers in (("trial002",), ("trial005",), ()):
        trained = small_studies.put_engine(monkeypatch, before=killed_at(numbers))
        try:
            search(study, tmp_path)
        except Killed:
            ended.append(len(trained))
    assert ended == [2, 3]
    assert [run.arm for run in trained] == ["trial005", "trial006"]
    of_trials = table(tmp_path)
    assert list(of_trials.trial) == list(range(7))
    assert (of_trials.state == "complete").all()


def test_a_study_goes_on_after_a_process_was_killed_while_it_asked(tmp_path, monkeypatch):
    study = small_studies.made(trials=2)
    small_studies.shared(study, tmp_path)._records.ask()
    small_studies.put_engine(monkeypatch)
    search(study, tmp_path)
    assert list(table(tmp_path).state) == ["complete"] * 2


def test_the_last_process_of_a_study_writes_what_it_found(tmp_path, monkeypatch, capsys):
    study = small_studies.made(trials=2)
    trained = small_studies.put_engine(monkeypatch)
    with small_studies.shared(study, tmp_path).claim(1):
        search(study, tmp_path)
        assert [run.arm for run in trained] == ["trial001"]
        assert "Other processes still train 1 trials. The last one" in capsys.readouterr().out
        assert not (tmp_path / "trials.csv").exists()
    search(study, tmp_path)  # as the other process was killed
    assert list(table(tmp_path).state) == ["complete"] * 2


def test_a_study_whose_own_parts_have_changed_is_refused(tmp_path, monkeypatch):
    study = small_studies.made(trials=1)
    small_studies.put_engine(monkeypatch)
    search(study, tmp_path)
    monkeypatch.setattr(searching.components, "changes", lambda *_: ["mining.miner has changed"])
    with pytest.raises(errors.InputError, match="holds a run of other code. mining.miner"):
        search(study, tmp_path)


def test_a_study_does_not_go_on_with_other_data_than_it_began_with(tmp_path, monkeypatch):
    study = small_studies.made(trials=1)
    small_studies.put_engine(monkeypatch)
    search(study, tmp_path)
    shared = small_studies.shared(study, tmp_path)
    (run,) = shared.trial(shared.records()[0]).runs
    now = data_json.content(vectorised.dataset(run.config))
    files.write_json(run.folder / "data.json", now | {"fingerprint": "another"})
    search(study, tmp_path)  # nothing is left to train
    study.trials = 2
    with pytest.raises(errors.InputError, match=r"runs/trial000/seed0 holds a run on other data"):
        search(study, tmp_path)
    files.write_json(run.folder / "data.json", now)
    search(study, tmp_path)


def test_trials_that_fail_are_listed_and_the_study_goes_on(tmp_path, monkeypatch, capsys):
    def score(run):
        return run.fail("the loss is not finite") if run.arm == "trial001" else 0.5

    small_studies.put_engine(monkeypatch, score)
    search(small_studies.made(), tmp_path)
    of_trials = table(tmp_path)
    assert list(of_trials.state).count("failed") == 1
    assert "failed: trial 1: the loss is not finite" in capsys.readouterr().out
    assert "5 complete, 1 failed" in (tmp_path / "best.py").read_text()


def test_a_study_whose_first_trials_all_fail_stops_with_their_error(tmp_path, monkeypatch):
    trained = small_studies.put_engine(monkeypatch, lambda run: run.fail("no room"))
    with pytest.raises(errors.InputError, match="the first 3 trials .* failed, .* so: no room"):
        search(small_studies.made(), tmp_path)
    assert len(trained) == 3


def test_a_point_whose_config_makes_no_sense_fails_its_trial(tmp_path, monkeypatch, capsys):
    study = small_studies.made(trials=12)
    study.space = (("batch.per_class", base.between(1, 80)),)  # a device needs whole rows
    small_studies.put_engine(monkeypatch, lambda run: 0.5)
    search(study, tmp_path)
    states = table(tmp_path).state.value_counts()
    assert states["failed"] > 0
    assert states["complete"] > 0
    assert "batch.per_class=" in capsys.readouterr().out


def test_that_no_trial_beats_the_default_is_said(tmp_path, monkeypatch, capsys):
    default = 1e-3
    small_studies.put_engine(
        monkeypatch, lambda run: 1 - abs(run.config.optimizer.learning_rate - default)
    )
    search(small_studies.made(), tmp_path)
    printed = capsys.readouterr().out
    assert "No trial was better than the config that the study began with." in printed
    assert "0 (default)" in printed
    assert not (tmp_path / "confirm.py").exists()


def test_a_study_may_grow(tmp_path, monkeypatch):
    trained = small_studies.put_engine(monkeypatch)
    search(small_studies.made(trials=2), tmp_path)
    search(small_studies.made(trials=5), tmp_path)
    assert len(trained) == len(table(tmp_path)) == 5


SHORT = {
    "train.steps": 6,
    "evaluate.every": 2,
    "evaluate.episodes": 2,
    "log.telemetry_every": 0,
}


@pytest.mark.slow
def test_a_trial_that_is_given_up_ends_after_an_evaluation(tmp_path, monkeypatch):
    study = small_studies.made(trials=1, pruner="median", run=SHORT)
    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", lambda *_: True)
    search(study, tmp_path)
    (pruned,) = small_studies.shared(study, tmp_path).records("PRUNED")
    rows = (tmp_path / "runs/trial000/seed0/metrics.jsonl").read_text().splitlines()
    assert pruned.intermediate_values == {2: json.loads(rows[-1])["validation/map_at_r"]}
    assert list(table(tmp_path).steps) == [2]
    assert not (tmp_path / "runs/trial000/seed0/result.json").exists()
    assert not (tmp_path / "best.py").exists()


@pytest.mark.slow
def test_a_trial_that_is_stopped_reports_the_rest(tmp_path, monkeypatch):
    study = small_studies.made(trials=1, pruner="median", run=SHORT)
    with monkeypatch.context() as patch:
        stops.stop_after(patch, 3)
        search(study, tmp_path)
    (running,) = small_studies.shared(study, tmp_path).records("RUNNING")
    assert list(running.intermediate_values) == [2]
    search(study, tmp_path)
    (complete,) = small_studies.shared(study, tmp_path).records(*studies.ENDED)
    assert list(complete.intermediate_values) == [2, 4]
    row = json.loads((tmp_path / "runs/trial000/seed0/metrics.jsonl").read_text().splitlines()[-1])
    assert complete.value == row["validation/map_at_r"]


FILE = """
from configs.tune import digits


def get_config():
    study = digits.get_config()
    study.run.update_from_flattened_dict({fields})
    study.seeds = (0,)
    return study
"""


def program(folder, *flags):
    """The arguments of a study by the engine vectorised."""
    path = folder / "study.py"
    path.write_text(FILE.format(fields=small_sweeps.SMALL))
    return [f"--config={path}", f"--workdir={folder / 'out'}", *flags]


@pytest.mark.slow
def test_a_study_that_is_killed_by_the_system_goes_on(tmp_path):
    given = program(tmp_path, "--config.trials=10")
    for whole in (3, 7):
        process = programs.start("tune", *given)

        def trained(at_least=whole):
            return len([*tmp_path.glob("out/runs/*/*/result.json")]) >= at_least

        programs.wait_until(trained, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = programs.run("tune", *given)
    assert done.returncode == 0, done.stderr
    of_trials = table(tmp_path / "out")
    assert list(of_trials.trial) == list(range(10))
    assert (of_trials.state == "complete").all()
    swept = programs.run(
        "sweep", f"--config={tmp_path / 'out' / 'confirm.py'}", f"--workdir={tmp_path / 'confirm'}"
    )
    assert swept.returncode == 0, swept.stderr
    assert len([*tmp_path.glob("confirm/runs/*/*/result.json")]) == 10


@pytest.mark.slow
def test_four_processes_share_a_study(tmp_path):
    given = program(tmp_path, "--config.trials=13", "--config.parallel=2")
    started = [programs.start("tune", *given) for _ in range(4)]
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert sum("written to" in one for one in said) >= 1
    of_trials = table(tmp_path / "out")
    assert list(of_trials.trial) == list(range(13))
    assert sum(one.count(": map_at_r") for one in said) == 13  # each was trained once


@pytest.mark.slow
def test_the_best_config_trains(tmp_path):
    done = programs.run("tune", *program(tmp_path, "--config.trials=2", "--config.engine=here"))
    assert done.returncode == 0, done.stderr
    best = tmp_path / "out" / "best.py"
    # Its fields are those of programs.TINY otherwise.
    trained = programs.run_code(
        "import sys, runpy; sys.argv[0] = 'train';"
        "runpy.run_module('experiments.train', run_name='__main__', alter_sys=True)",
        f"--config={best}",
        f"--workdir={tmp_path / 'best'}",
    )
    assert trained.returncode == 0, trained.stderr
    number = json.loads((tmp_path / "out" / "result.json").read_text())["best"]["trial"]
    of_trial = tmp_path / "out" / "runs" / f"trial{number:03d}" / "seed0" / "metrics.jsonl"
    assert (tmp_path / "best" / "metrics.jsonl").read_bytes() == of_trial.read_bytes()


def test_the_program_refuses_before_it_writes(tmp_path):
    for flag, words in (
        ("--config.samplr=tpe", "'sampler'"),
        ("--config.run.model.width=-1", "model.width=-1"),
    ):
        given = ["--config=configs/tune/digits.py", flag, f"--workdir={tmp_path / 'out'}"]
        done = programs.run("tune", *given)
        programs.refused(done, words)
    assert not (tmp_path / "out").exists()
