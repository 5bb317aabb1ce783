"""The program that carries out a sweep, in this process, by an engine that trains nothing."""

import json
import types

import pytest

from experiments import sweep as program
from experiments.sweeps import execution, executors, slurm
from tests.support import mains, small_sweeps
from triplet_jax import errors

TUNED = {"trial_seeds": (7,), "trials": (("one", ({"loss.margin": 0.2}, {"loss.margin": 0.4})),)}


@pytest.fixture
def engine(monkeypatch):
    """An engine that trains up to `most` runs; `trained` has their names, and `broken` fail.

    The folders of which reports are to be written are in `reports`.
    """
    found = types.SimpleNamespace(trained=[], broken=(), most=99, reports=[])

    def train(planned, sweep, show):
        for run in [run for run in planned if not run.has_ended][: found.most]:
            found.trained.append(run.name)
            if run.name in found.broken:
                run.fail("the loss is not finite")
            else:
                small_sweeps.finish(run, run.config.loss.margin, 0.5)

    monkeypatch.setitem(executors.ENGINES, "vectorised", train)
    monkeypatch.setitem(executors.ENGINES, "slurm", train)
    monkeypatch.setattr(execution.report, "write", lambda w: found.reports.append(w) or [])
    return found


def start(monkeypatch, workdir, *flags, **fields):
    """Calls the program with flags, and a sweep of one arm with these fields."""
    fields = {"arms": (("one", {}),), "seeds": (0,), **fields}
    sweep = small_sweeps.made(**fields)
    monkeypatch.setattr(program, "CONFIG", types.SimpleNamespace(name="config", value=sweep))
    mains.call(program.main, f"--workdir={workdir}", *flags)


def test_the_comparison_is_of_what_the_trials_chose(engine, tmp_path, monkeypatch, capsys):
    start(monkeypatch, tmp_path / "out", **TUNED)
    assert engine.trained == ["one.0 seed 7", "one.1 seed 7", "one seed 0"]
    config = json.loads((tmp_path / "out/runs/one/seed0/config.json").read_text())
    assert config["loss"]["margin"] == 0.4
    printed = capsys.readouterr().out
    assert "2 runs: 1 arms x 1 settings x 2 trials x 1 seeds; 2 to do, by the engine" in printed
    assert "1 runs: 1 arms x 1 settings x 1 seeds; 1 to do, by the engine" in printed
    assert engine.reports == [tmp_path / "out"]


def test_a_sweep_that_is_stopped_in_its_trials_goes_on(engine, tmp_path, monkeypatch, capsys):
    engine.most = 1
    start(monkeypatch, tmp_path, **TUNED)
    assert engine.trained == ["one.0 seed 7"]
    assert "stopped with 1 runs to do. Run the same command again" in capsys.readouterr().out
    assert not engine.reports


def test_runs_that_failed_are_tried_again_where_it_is_asked_for(engine, tmp_path, monkeypatch):
    engine.broken = ("one seed 1",)
    start(monkeypatch, tmp_path, seeds=(0, 1))
    start(monkeypatch, tmp_path, seeds=(0, 1))
    assert engine.trained == ["one seed 0", "one seed 1"]
    jobs = {name: {"job": "7_0", "step": 0, "tries": 3} for name in engine.trained}
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "jobs.json").write_text(json.dumps(jobs))
    engine.broken = ()
    start(monkeypatch, tmp_path, "--retry", seeds=(0, 1))
    assert engine.trained == ["one seed 0", "one seed 1", "one seed 1"]
    assert not (tmp_path / "runs/one/seed1/error.txt").exists()
    assert list(json.loads((tmp_path / "slurm" / "jobs.json").read_text())) == ["one seed 0"]


def test_the_cluster_is_asked_before_a_sweep_begins(engine, tmp_path, monkeypatch):
    def missing():
        raise errors.InputError("engine='slurm' needs a SLURM cluster")

    monkeypatch.setattr(slurm, "check", missing)
    with pytest.raises(errors.InputError, match="needs a SLURM cluster"):
        start(monkeypatch, tmp_path, engine="slurm")
    assert not engine.trained and not (tmp_path / "sweep.json").exists()


def test_the_jobs_of_a_sweep_are_cancelled_and_no_run_begins(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slurm, "check", lambda: None)
    monkeypatch.setattr(slurm, "cancel", {tmp_path: 3}.get)
    with pytest.raises(errors.InputError, match="holds no sweep: there is no sweep.json"):
        start(monkeypatch, tmp_path, "--cancel")
    (tmp_path / "sweep.json").touch()
    start(monkeypatch, tmp_path, "--cancel")
    assert capsys.readouterr().out == "cancelled 3 jobs\n"
    assert not engine.trained
