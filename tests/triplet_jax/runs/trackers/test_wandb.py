"""What Weights & Biases writes offline."""

import pytest

from triplet_jax.runs.trackers import interface
from triplet_jax.runs.trackers.wandb import WandB

pytest.importorskip("wandb", reason="needs the extra wandb")
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
