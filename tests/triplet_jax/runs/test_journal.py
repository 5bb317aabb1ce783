"""What a journal writes of a run, and when it warns."""

import pytest

from triplet_jax.runs import health, row_files
from triplet_jax.runs.journal import Journal
from triplet_jax.runs.progress import Progress
from triplet_jax.runs.trackers.background import Trackers

COLLAPSED = {"embedding_spread": 0.0, "embedding_norm": 1.0, "mean_d_an": 0.0, "loss": 0.2}
HEALTHY = {"embedding_spread": 0.9, "embedding_norm": 1.0, "mean_d_an": 1.2, "loss": 0.1}


@pytest.fixture
def journal(tmp_path):
    made = Journal(
        rows=row_files.RowFile(tmp_path / "metrics.jsonl", last_step=0),
        timing=row_files.RowFile(tmp_path / "timing.jsonl", last_step=0),
        telemetry=None,
        trackers=Trackers(),
        progress=Progress(steps=100, first_step=0, batch=4),
        collapsed_loss=0.2,
        advice=lambda: "Try another miner.",
    )
    yield made
    made.close()


def test_speed_is_no_metric(journal, tmp_path):
    journal.metrics({"step": 1} | HEALTHY)
    journal.scores(1, {"map_at_r": 0.5}, shown="map_at_r")
    rows = row_files.read_rows(tmp_path / "metrics.jsonl")
    assert rows == [{"step": 1} | HEALTHY, {"step": 1, "validation/map_at_r": 0.5}]
    (timing,) = row_files.read_rows(tmp_path / "timing.jsonl")
    assert timing.keys() == {"step", "images_per_second"}


def test_each_collapse_is_warned_of_once(journal, capsys):
    steps = iter(range(1, 100))
    warnings = []
    for numbers in (COLLAPSED, HEALTHY, COLLAPSED):
        for _ in range(2 * health.ROWS):
            journal.metrics({"step": next(steps)} | numbers)
        warnings.append(capsys.readouterr().out.count("has collapsed"))
    assert warnings == [1, 0, 1]
