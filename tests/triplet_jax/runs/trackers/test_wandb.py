"""What Weights & Biases writes offline, and what it is asked to do."""

import sys
import types
from unittest import mock

import pytest

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.wandb import WandB

BLOCK, HEADER = 32768, 7  # of a log of LevelDB, which begins with seven bytes of W&B's own


def records(path):
    """The records of a .wandb file."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def written(folder):
    """The runs, their rows and their config, of all parts of a run that was continued."""
    found, rows, config, files = [], {}, {}, set()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            if record.HasField("run"):
                found.append(record.run)
                config |= {item.key: item.value_json for item in record.run.config.update}
            config |= {item.key: item.value_json for item in record.config.update}
            files |= {file.path for file in record.files.files}
            row = {
                "/".join(item.nested_key) or item.key: item.value_json
                for item in record.history.item
            }
            if row:
                rows.setdefault(record.history.step.num, {}).update(row)
    return found, rows, config, files


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_goes_on_is_one_run_of_its_group(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    (tmp_path / "result.json").write_text("{}")
    place = interface.Place(tmp_path, "arm/seed0", "sweep")
    (tmp_path / "other").mkdir()
    tracker, other = WandB(place), WandB(interface.Place(tmp_path / "other", "other"))
    tracker.config({"loss.margin": 0.2, "log.every": 1})
    tracker.write({"step": 1, "loss": 0.5})
    tracker.end("stopped")
    other.end("finished")
    again = WandB(interface.Place(tmp_path, "arm/seed0", "sweep", 1, tracker.known))
    again.config({"loss.margin": 0.2, "log.every": 2})
    again.write({"step": 2, "loss": 0.25})
    again.file(tmp_path / "result.json")
    again.end("finished")
    found, rows, config, files = written(tmp_path)
    assert {run.run_id for run in found} == {tracker.known["run"]}
    assert other.known["run"] != tracker.known["run"]
    assert {(run.project, run.run_group, run.display_name) for run in found} == {
        ("triplet_jax", "sweep", "arm/seed0")
    }
    assert (rows[1]["loss"], rows[2]["loss"]) == ("0.5", "0.25")
    assert (config["loss.margin"], config["log.every"]) == ("0.2", "2")
    assert "result.json" in files


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A stand-in that records what it is asked."""
    package = mock.MagicMock()
    package.__class__ = types.ModuleType
    package.init.return_value.dir = str(tmp_path / "files")
    (tmp_path / "files").mkdir()
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return package


def test_a_run_is_offline_unless_the_environment_says_otherwise(tmp_path, package, monkeypatch):
    known = WandB(interface.Place(tmp_path, "arm/seed0", "sweep")).known
    asked = package.init.call_args.kwargs
    assert (asked["project"], asked["group"], asked["mode"]) == ("triplet_jax", "sweep", "offline")
    assert (asked["name"], asked["id"]) == ("arm/seed0", known["run"])
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    WandB(interface.Place(tmp_path, "arm/seed0", known=known))
    asked = package.init.call_args.kwargs
    assert (asked["project"], asked["group"], asked["mode"]) == ("mine", None, "online")
    assert (asked["id"], asked["resume"]) == (known["run"], "allow")


def test_a_run_gets_its_numbers_its_pictures_and_copies_of_other_files(tmp_path, package):
    run = package.init.return_value
    tracker = WandB(interface.Place(tmp_path, "one"))
    tracker.config({"log.every": 2})
    run.config.update.assert_called_once_with({"log.every": 2}, allow_val_change=True)
    tracker.write({"step": 3, "loss": 1})
    run.log.assert_called_once_with({"loss": 1.0}, step=3)
    tracker.file(tmp_path / "map.png")
    run.log.assert_called_with({"map": package.Image.return_value})
    (tmp_path / "result.json").write_text("{}")
    tracker.file(tmp_path / "result.json")
    assert (tmp_path / "files" / "result.json").read_text() == "{}"
    assert run.save.call_args.args == (str(tmp_path / "files" / "result.json"),)


@pytest.mark.parametrize(("ending", "code"), [("finished", 0), ("stopped", 0), ("failed", 1)])
def test_a_run_that_failed_is_shown_as_one(ending, code, tmp_path, package):
    WandB(interface.Place(tmp_path, "one")).end(ending)
    package.init.return_value.finish.assert_called_once_with(exit_code=code)
