"""What MLflow keeps in a local store."""

import collections
import json
import os
import sys
import types

import pytest

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.mlflow import MLflow

# MLflow uses what SQLAlchemy is about to remove.
pytestmark = pytest.mark.filterwarnings("ignore")


class Refused(Exception):
    """The error of MLflow's server."""

    def __init__(self, error_code):
        self.error_code = error_code


class Client:
    """A stand-in for MLflow's client, with the limits of its server; a URI names a store."""

    stores = {}

    def __init__(self, tracking_uri=None):
        uri = tracking_uri or os.environ["MLFLOW_TRACKING_URI"]
        self._experiments, self._runs = self.stores.setdefault(uri, ({}, {}))

    def get_experiment_by_name(self, name):
        return self._experiments.get(name)

    def create_experiment(self, name):
        found = types.SimpleNamespace(name=name, experiment_id=f"{len(self._experiments)}")
        if self._experiments.setdefault(name, found) is not found:
            raise Refused("RESOURCE_ALREADY_EXISTS")
        return found.experiment_id

    def search_experiments(self):
        return list(self._experiments.values())

    def create_run(self, experiment, run_name):
        number = f"run {len(self._runs)}"
        info = types.SimpleNamespace(
            run_id=number, run_name=run_name, status="RUNNING", experiment=experiment
        )
        data = types.SimpleNamespace(params={}, tags={}, metrics={})
        self._runs[number] = types.SimpleNamespace(info=info, data=data, rows=[], files=[])
        return self._runs[number]

    def get_run(self, number):
        return self._runs[number]

    def search_runs(self, experiments):
        return [run for run in self._runs.values() if run.info.experiment in experiments]

    def update_run(self, number, status):
        if number not in self._runs:
            raise Refused("RESOURCE_DOES_NOT_EXIST")
        self._runs[number].info.status = status

    set_terminated = update_run

    def log_batch(self, number, params=(), tags=(), metrics=()):
        data = self._runs[number].data
        params, tags = dict(params), dict(tags)
        if len(params) > 100 or len(metrics) > 1000 or params.keys() & data.params.keys():
            raise Refused("INVALID_PARAMETER_VALUE")
        data.params |= params
        data.tags |= tags
        data.metrics |= {metric.key: metric.value for metric in metrics}
        self._runs[number].rows += metrics

    def get_metric_history(self, number, name):
        return [metric for metric in self._runs[number].rows if metric.key == name]

    def log_artifact(self, number, path):
        self._runs[number].files.append(types.SimpleNamespace(path=os.path.basename(path)))

    def list_artifacts(self, number):
        return self._runs[number].files


PAIR = collections.namedtuple("Pair", "key value")
STAND_IN = types.ModuleType("mlflow")
vars(STAND_IN).update(
    MlflowClient=Client,
    get_tracking_uri=lambda: os.environ["MLFLOW_TRACKING_URI"],
    entities=types.SimpleNamespace(
        Param=PAIR,
        RunTag=PAIR,
        Metric=collections.namedtuple("Metric", "key value timestamp step"),
    ),
    exceptions=types.SimpleNamespace(MlflowException=Refused),
)


@pytest.fixture(params=["a stand-in", "the package"])
def client(request, tmp_path, monkeypatch):
    """The client of MLflow, where it is installed, and the stand-in."""
    if request.param == "a stand-in":
        monkeypatch.setitem(sys.modules, "mlflow", STAND_IN)
        monkeypatch.setattr(Client, "stores", {})
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
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
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1  # that of a second ago
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


def test_rows_are_sent_when_the_last_were_sent_a_second_ago(client, tmp_path, monkeypatch):
    tracker = MLflow(interface.Place(tmp_path, "one"))
    number = tracker.known["run"]
    tracker.write({"step": 1, "loss": 0.5})
    assert client.get_metric_history(number, "loss") == []
    monkeypatch.setattr("triplet_jax.runs.trackers.mlflow._SECONDS_BETWEEN", 0.0)
    tracker.write({"step": 2, "loss": 0.25})
    assert [metric.step for metric in client.get_metric_history(number, "loss")] == [1, 2]


def test_the_experiment_may_be_made_by_another_run_of_the_group(client, tmp_path, monkeypatch):
    create = type(client).create_experiment

    def too_late(self, name):
        create(self, name)
        return create(self, name)

    monkeypatch.setattr(type(client), "create_experiment", too_late)
    MLflow(interface.Place(tmp_path, "one", "sweep"))
    (found,) = [e for e in client.search_experiments() if e.name == "sweep"]
    assert len(client.search_runs([found.experiment_id])) == 1


def test_an_experiment_that_cannot_be_made_is_no_run(client, tmp_path, monkeypatch):
    def refuse(self, name):
        raise sys.modules["mlflow"].exceptions.MlflowException("PERMISSION_DENIED")

    monkeypatch.setattr(type(client), "create_experiment", refuse)
    with pytest.raises(sys.modules["mlflow"].exceptions.MlflowException, match="PERMISSION"):
        MLflow(interface.Place(tmp_path, "one", "sweep"))


def test_a_store_that_refuses_the_known_run_is_not_taken_for_one_without_it(tmp_path, monkeypatch):
    def refuse(self, number, status):
        raise Refused("PERMISSION_DENIED")

    monkeypatch.setitem(sys.modules, "mlflow", STAND_IN)
    monkeypatch.setattr(Client, "stores", {})
    monkeypatch.setattr(Client, "update_run", refuse)
    with pytest.raises(Refused, match="PERMISSION"):
        MLflow(interface.Place(tmp_path, "one", known={"run": "1", "store": "sqlite:///x.db"}))
