"""The harness of faults sees what went wrong, and its table says so."""

import json
import random
import sys

import pytest

from tests.faults import __main__ as harness
from tests.faults import bench, kills, table


@pytest.mark.parametrize(
    ("said", "status", "wrong"),
    [
        ("continuing after step 30", 0, None),
        ("", 0, "NO WORD OF 'continuing after step 30'"),
        ("continuing after step 60", 0, "NO WORD OF 'continuing after step 30'"),
        ("continuing after step 30\nTraceback (most recent call last)\nKeyError", 0, "TRACEBACK"),
        ("continuing after step 30\nerror: full", 3, "EXIT 3: error: full"),
    ],
)
def test_a_run_that_ends_otherwise_is_complained_of(said, status, wrong):
    found = bench.complaint(said, status, 0, "continuing after step 30")
    assert found == wrong or found.startswith(wrong)


def _run(folder, margin):
    """What a run leaves, without the run."""
    checkpoint = folder / "checkpoints" / "3" / "digest"
    checkpoint.mkdir(parents=True)
    (checkpoint / "metadata").write_text(json.dumps({"sha256": "0"}))
    (folder / "metrics.jsonl").write_text(f"{margin}\n")
    (folder / "telemetry.jsonl").write_text("")
    result = {"embedding": {}, "raw_pixels": {}, "protocol": {}}
    (folder / "result.json").write_text(json.dumps(result))


def test_sweeps_are_the_same_where_all_of_their_runs_are(tmp_path):
    empty, half, whole, other = (tmp_path / name for name in ("empty", "half", "whole", "other"))
    for sweep, arms in (
        (half, ["narrow"]),
        (whole, ["narrow", "wide"]),
        (other, ["narrow", "wide"]),
    ):
        for arm in arms:
            _run(sweep / "runs" / arm / "seed0", margin=sweep is other)
    assert kills.compared(empty, empty) == "LOST: 0 of 2 runs are done"
    assert kills.compared(half, half) == "LOST: 1 of 2 runs are done"
    assert kills.compared(whole, other) == "DIFFERENT"
    assert kills.compared(whole, whole) == "same"


def test_a_harness_that_breaks_leaves_no_row_of_before(tmp_path, monkeypatch):
    def breaks(_):
        """a fault"""
        yield "same"
        raise OSError("no such program")

    monkeypatch.setattr(table, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(harness, "FAULTS", (breaks,))
    monkeypatch.setattr(table, "commit", lambda: "abc")
    monkeypatch.setattr(bench.Bench, "leave_alone", lambda self: self)
    made = table.made_with(seed=0, kills=4)
    table.write({"a fault": table.row("a fault", ["same"], "old")}, ["a fault"], made)
    monkeypatch.setattr(sys, "argv", ["faults", "--kills=4", "--write"])
    with pytest.raises(SystemExit) as status:
        harness.main()
    assert status.value.code
    broke = "1 THE HARNESS BROKE: OSError: no such program"
    assert table.read(made) == {"a fault": f"| a fault | 2 | 1 same, {broke} | abc |"}
    assert made in table.RESULTS.read_text()
    assert not table.read(table.made_with(seed=1, kills=4))  # of another seed

    def dies(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.Bench, "leave_alone", dies)
    with pytest.raises(KeyboardInterrupt):
        harness.main()
    assert table.read(made) == {"a fault": f"| a fault | 1 | 1 {harness.NOT_RUN} | abc |"}


def test_moments_are_drawn_from_the_whole_life_of_a_run(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(bench.time, "sleep", slept.append)
    monkeypatch.setattr(bench.programs, "last_step", lambda workdir: bench.STEPS)
    where = bench.Bench(tmp_path, 1, random.Random(0), starting=2.0, ending=3.0)
    for stage in kills.STAGES:
        where.wait(tmp_path, None, stage)
    assert len(slept) == 2
    assert 0 < slept[0] < 2.0
    assert 0 < slept[1] < 3.0
