"""MLflow: where MLFLOW_TRACKING_URI says, or in its local store."""

import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from triplet_jax.runs.row_files import Row
from triplet_jax.runs.trackers import interface

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_LONGEST_VALUE = 6000
_MOST_PARAMS = 100
_MOST_METRICS = 1000
_SECONDS_BETWEEN = 1.0  # a transaction of one row took 8 ms, one of five rows 13


class MLflow:
    """Writes a run of MLflow, in the experiment of the run's group.

    A run that goes on does so in the store where it began, unless MLFLOW_TRACKING_URI names
    another one. MLflow keeps the first value of a parameter: a field that has changed since becomes
    a tag of the same name.
    """

    package = "mlflow"

    def __init__(self, place: interface.Place):
        mlflow = interface.needed(self.package, "mlflow")
        self._entities, self._errors = mlflow.entities, mlflow.exceptions.MlflowException
        of_environment = os.environ.get("MLFLOW_TRACKING_URI")
        store = of_environment or place.known.get("store") or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(tracking_uri=store)
        self._run = self._known_run(place.known.get("run")) or self._new_run(place)
        self.known = {"run": self._run, "store": store}
        self._unsent, self._sent = [], time.monotonic()

    def _known_run(self, number):
        """The number of a run that goes on; None where the store does not have it."""
        if not number:
            return None
        try:
            self._client.update_run(number, status="RUNNING")
        except self._errors as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return number

    def _new_run(self, place):
        usual = os.environ.get("MLFLOW_EXPERIMENT_NAME") or interface.PROJECT
        experiment = self._experiment(place.group or usual)
        return self._client.create_run(experiment, run_name=place.name).info.run_id

    def _experiment(self, name):
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except self._errors:  # another run of the group was quicker
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def config(self, values: Mapping[str, Any]) -> None:
        """Logs the fields as parameters."""
        there = self._client.get_run(self._run).data.params
        texts = {name: str(value)[:_LONGEST_VALUE] for name, value in values.items()}
        new = [self._entities.Param(n, text) for n, text in texts.items() if n not in there]
        for first in range(0, len(new), _MOST_PARAMS):
            self._client.log_batch(self._run, params=new[first : first + _MOST_PARAMS])
        changed = [
            self._entities.RunTag(n, text)
            for n, text in texts.items()
            if there.get(n, text) != text
        ]
        if changed:
            self._client.log_batch(self._run, tags=changed)

    def write(self, row: Row) -> None:
        """Logs the numbers of a row as metrics at its step, those of a second at a time."""
        now = int(1000 * time.time())
        self._unsent += [
            self._entities.Metric(name, value, now, row["step"])
            for name, value in interface.numbers(row).items()
        ]
        if time.monotonic() - self._sent >= _SECONDS_BETWEEN:
            self._send()

    def _send(self):
        metrics, self._unsent = self._unsent, []
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[first : first + _MOST_METRICS])
        self._sent = time.monotonic()

    def file(self, path: pathlib.Path) -> None:
        """Logs a file as an artifact."""
        self._client.log_artifact(self._run, str(path))

    def end(self, ending: str) -> None:
        """Sends what is left, and sets the status of the run."""
        self._send()
        self._client.set_terminated(self._run, status=_STATUS[ending])
