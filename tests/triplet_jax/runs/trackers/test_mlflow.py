"""What MLflow keeps in a local store."""

import json

import pytest

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.mlflow import MLflow

mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
# MLflow uses what SQLAlchemy is about to remove.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return mlflow.MlflowClient()


def test_a_run_that_goes_on_is_one_run_of_its_group(client, tmp_path, monkeypatch):
    (tmp_path / "result.json").write_text(json.dumps({"score": 1}))
    values = {f"field.{i}": i for i in range(150)} | {"dataset.path": "", "log.every": 1}
    tracker = MLflow(interface.Place(tmp_path, "arm/seed0", "sweep"))
    tracker.config(values)
    tracker.write({"step": 1, "loss": 0.5, "validation/map_at_r": float("nan")})
    tracker.end("stopped")
    (experiment,) = [e for e in client.search_experiments() if e.name == "sweep"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("arm/seed0", "KILLED")

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir("/")
    again = MLflow(interface.Place(tmp_path, "arm/seed0", "sweep", 1, tracker.known))
    again.config(values | {"log.every": 2})
    again.write({"step": 2, "loss": 0.25} | {f"number/{i}": i for i in range(1200)})
    again.file(tmp_path / "result.json")
    again.end("finished")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["field.149"] == "149"
    assert run.data.params["log.every"] == "1"
    assert run.data.tags["log.every"] == "2"
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["number/1199"] == 1199
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["result.json"]


def test_a_run_that_another_store_does_not_know_begins_there(client, tmp_path):
    known = {"run": "0" * 32, "store": "sqlite:///elsewhere.db"}
    tracker = MLflow(interface.Place(tmp_path, "one", known=known))
    tracker.write({"step": 1, "loss": 0.5})
    tracker.end("failed")
    assert client.get_run(tracker.known["run"]).info.status == "FAILED"
    assert client.get_experiment_by_name("triplet_jax") is not None
