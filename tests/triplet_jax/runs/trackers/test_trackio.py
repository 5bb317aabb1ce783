"""What trackio keeps in its local database."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("trackio", reason="needs the extra trackio")

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
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(__file__).parents[4]))
    done = subprocess.run(
        [sys.executable, "-c", WRITE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stderr
    assert list((tmp_path / "trackio" / "artifacts").rglob("*"))
