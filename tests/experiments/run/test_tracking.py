"""What the trackers of runs and sweeps are shown, and that a run does not depend on them."""

import json
import sys

import ml_collections
import pytest

from configs import base
from configs.sweeps import base as sweeps
from experiments.config import check, completion, saved_configs, settings
from experiments.run import tracking, training
from experiments.run.setup import Setup
from experiments.sweeps import execution, plan
from tests.support import configs, fake_trackers, programs, small_sweeps, stops
from triplet_jax import errors
from triplet_jax.runs import row_files
from triplet_jax.runs.trackers import opening

# The order of what it is given must not depend on how quick a thread is.
FIELDS = {
    "model.name": "mlp",
    "train.steps": 8,
    "evaluate.every": 4,
    "log.every": 2,
    "log.telemetry_every": 0,
    "log.trackers": ("tensorboard",),
}


def made(**fields):
    tiny = {name.replace(".", "__"): x for name, x in (programs.TINY | FIELDS).items()}
    return ml_collections.FrozenConfigDict(configs.config(**tiny | fields))


def steps(recorder, name="loss"):
    return [row["step"] for row in recorder.of("write") if name in row]


@pytest.mark.slow
def test_a_run_shows_its_config_rows_result_and_files_and_goes_on(tmp_path, monkeypatch):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Recorder)
    (tmp_path / "map.png").touch()
    with monkeypatch.context() as patch:
        stops.stop_after(patch, 5)
        training.train(made(), tmp_path)
    training.train(made(), tmp_path)
    first, second = fake.made
    assert first.of("config") == [settings.flat(completion.completed(made()))]
    assert steps(first) == [2, 4]
    assert first.of("end") == ["stopped"]
    assert second.known == first.known
    assert steps(second) == [6, 8]
    assert steps(second, "validation/map_at_r") == [8]
    assert "images_per_second" in second.of("write")[-3]
    result = json.loads((tmp_path / "result.json").read_text())
    shown = second.of("write")[-1]
    score = result["embedding"]["retrieval"]["map_at_r"]
    assert (shown["step"], shown["result/embedding/retrieval/map_at_r"]) == (8, score)
    assert second.of("file") == ["config.json", "result.json", "map.png"]
    assert second.shown[-1] == ("end", "finished")


@pytest.mark.parametrize(
    "kind", [pytest.param(fake_trackers.Failing, marks=pytest.mark.slow), fake_trackers.Hanging]
)
def test_a_run_ends_whatever_its_tracker_does(kind, tmp_path, monkeypatch, capfd):
    fake = fake_trackers.put(monkeypatch, kind)
    monkeypatch.setattr(tracking, "WAIT_SECONDS", 0.1)
    training.train(made(), tmp_path)
    fake.gate.set()
    rows = [row["step"] for row in row_files.read_rows(tmp_path / "metrics.jsonl") if "loss" in row]
    assert rows == [2, 4, 6, 8]
    assert (tmp_path / "result.json").exists()
    assert capfd.readouterr().err.count("warning: the tracker tensorboard") == 1


def test_a_run_that_fails_says_so(tmp_path, monkeypatch):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Recorder)
    with pytest.raises(ZeroDivisionError), tracking.tracked(made(), tmp_path, 0) as trackers:
        trackers.write({"step": 1})
        raise ZeroDivisionError
    assert fake.made[0].of("end") == ["failed"]


@pytest.mark.slow
def test_a_vectorised_sweep_groups_its_runs_and_shows_its_report(tmp_path, monkeypatch):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Recorder)
    run = configs.config(**{n.replace(".", "__"): x for n, x in small_sweeps.SMALL.items()})
    run.update_from_flattened_dict(FIELDS | {"batch.per_class": 8, "evaluate.episodes": 2})
    sweep = sweeps.get_config(run)
    sweep.arms = (("one", {}), ("two", {"loss.margin": 0.5}))
    sweep.reference, sweep.seeds = "one", (0,)
    monkeypatch.setattr(execution.report, "write", lambda workdir: ("report.html",))
    workdir = tmp_path / "margins"
    workdir.mkdir()
    plan.remember(sweep, workdir)
    execution.carry_out(sweep, plan.plan(sweep, workdir), workdir)
    # Each tracker is opened in a thread of its own, in any order.
    opened = {one.place.name: one for one in fake.made}
    assert sorted(opened) == ["one/seed0", "report", "two/seed0"]
    assert {one.place.group for one in fake.made} == {"margins"}
    report = opened.pop("report")
    for one in opened.values():
        assert steps(one) == [2, 4, 6, 8]
        assert steps(one, "result/embedding/retrieval/map_at_r") == [8]
        assert one.shown[-1] == ("end", "finished")
    assert report.of("file") == ["report.html"]


def test_a_run_outside_of_a_sweep_has_no_group(tmp_path):
    (tmp_path / "sweep.json").touch()
    assert tracking._names(tmp_path / "runs" / "hard" / "seed0") == (tmp_path.name, "hard/seed0")
    assert tracking._names(tmp_path / "beside") == ("", "beside")


@pytest.mark.parametrize(
    ("trackers", "words"),
    [(("mlfow",), "Did you mean 'mlflow'"), (("wandb", "wandb"), "must not name anything twice")],
)
def test_trackers_that_make_no_sense_are_refused(trackers, words):
    with pytest.raises(errors.InputError, match=rf"log.trackers=.*{words}"):
        check.check_anywhere(made(log__trackers=trackers))


def test_a_tracker_that_is_not_installed_is_refused_at_launch(tmp_path, monkeypatch):
    monkeypatch.setattr(opening.TRACKERS["mlflow"], "package", "no_such_package")
    with pytest.raises(errors.InputError, match=r"triplet_jax\[mlflow\].*leave it out of log\.tra"):
        Setup(made(log__trackers=("mlflow",)), tmp_path, None).check()


@pytest.mark.parametrize(("before", "now"), [(True, ("tensorboard",)), (False, ())])
def test_a_run_that_wrote_for_tensorboard_before_goes_on_with_it(before, now):
    content = json.loads(base.get_config().to_json())
    del content["log"]["trackers"]
    content["log"]["tensorboard"] = before
    assert saved_configs.from_content(content).log.trackers == now


def test_opening_no_tracker_starts_no_thread_and_loads_nothing(tmp_path):
    with tracking.tracked(made(log__trackers=()), tmp_path, 0) as trackers:
        trackers.write({"step": 1})
    assert not list(tmp_path.iterdir())
    assert "mlflow" not in sys.modules
