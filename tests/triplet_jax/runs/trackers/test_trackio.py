"""What trackio keeps in its local database, and what it is asked to do."""

import pathlib
import subprocess
import sys
import types
from unittest import mock

import pytest

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.trackio import Trackio

# In a process of its own, since trackio reads TRACKIO_DIR once, when it is imported.
WRITE = """
import pathlib, threading
from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.trackio import Trackio

def shown(name, known=None, step=1):
    tracker = Trackio(interface.Place(pathlib.Path(), name, "sweep", step - 1, known or {}))
    tracker.config({"loss.margin": 0.2})
    tracker.write({"step": step, "loss": 0.5 / step})
    if step == 2:
        tracker.file(pathlib.Path("result.json"))
    tracker.end("finished")
    return tracker.known

pathlib.Path("result.json").write_text("{}")
known = shown("one/seed0")
assert shown("one/seed0", known, 2) == known
other = threading.Thread(target=shown, args=("two/seed0",))
other.start(); other.join()

import trackio
project = trackio.Api().runs("sweep")
names = sorted(run.name.rpartition("-")[0] for run in project)
assert names == ["one/seed0", "two/seed0"], names
(run,) = [run for run in project if run.name == known["run"]]
assert run.config["loss.margin"] == 0.2
assert run.config["_Group"] == "sweep"
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs("sweep", known["run"])
assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.25)], rows
"""


def test_a_run_that_goes_on_is_one_run_of_its_project(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="needs the extra trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[4]))
    done = subprocess.run(
        [sys.executable, "-c", WRITE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stderr
    assert list((tmp_path / "trackio" / "artifacts").rglob("*"))


@pytest.fixture
def package(monkeypatch):
    """A stand-in that records what it is asked."""
    package = mock.MagicMock()
    package.__class__ = types.ModuleType
    monkeypatch.setitem(sys.modules, "trackio", package)
    return package


def test_a_run_is_found_again_by_its_name(tmp_path, package):
    known = [Trackio(interface.Place(tmp_path, "arm/seed0", "sweep")).known for _ in range(2)]
    assert known[0]["run"] != known[1]["run"]  # since a name stands for one run
    assert known[0]["run"].startswith("arm/seed0-")
    asked = package.init.call_args.kwargs
    assert (asked["project"], asked["group"], asked["name"]) == ("sweep", "sweep", known[1]["run"])
    # In another group, where it goes on in its own project.
    again = Trackio(interface.Place(tmp_path, "arm/seed0", "", 1, known[0]))
    asked = package.init.call_args.kwargs
    assert (asked["project"], asked["group"], asked["name"]) == ("sweep", None, known[0]["run"])
    assert asked["resume"] == "allow"
    assert again.known == known[0]
    assert Trackio(interface.Place(tmp_path, "one")).known["project"] == "triplet_jax"


def test_a_run_gets_its_numbers_its_pictures_and_other_files(tmp_path, package):
    run = package.init.return_value
    run.name = "arm/seed0-abc"
    tracker = Trackio(interface.Place(tmp_path, "arm/seed0"))
    tracker.config({"log.every": 2})
    run.config.update.assert_called_once_with({"log.every": 2})
    tracker.write({"step": 3, "loss": 1})
    run.log.assert_called_once_with({"loss": 1.0}, step=3)
    tracker.file(tmp_path / "map.png")
    run.log.assert_called_with({"map": package.Image.return_value})
    tracker.file(tmp_path / "result.json")
    run.log_artifact.assert_called_once_with(
        str(tmp_path / "result.json"), name="arm-seed0-abc-result.json", type="result"
    )
    assert not run.finish.called
    tracker.end("finished")
    assert run.finish.called
