"""Trackers that record, fail, hang or are not installed, as a run meets them."""

import time

import pytest

from tests.support import fake_trackers
from triplet_jax import errors
from triplet_jax.runs.trackers import background, opening


def opened(folder, **names):
    return opening.opened(["tensorboard"], folder, name="one", **names)


def ended(trackers, seconds=30.0):
    trackers.end("finished")
    trackers.wait(time.monotonic() + seconds)


def test_a_tracker_is_shown_all_in_order_and_knows_its_run_again(tmp_path, monkeypatch):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Recorder)
    for last_step in (0, 4):
        trackers = opened(tmp_path, group="all", last_step=last_step)
        trackers.config({"seed": 0})
        trackers.write({"step": last_step + 1, "loss": 0.5})
        trackers.file(tmp_path / "result.json")
        ended(trackers)
        trackers.write({"step": 9})  # nobody listens any more
    first, second = fake.made
    assert first.place.known == {}
    assert second.place.known == first.known == second.known
    assert (second.place.name, second.place.group, second.place.last_step) == ("one", "all", 4)
    assert second.shown == [
        ("config", {"seed": 0}),
        ("write", {"step": 5, "loss": 0.5}),
        ("file", "result.json"),
        ("end", "finished"),
    ]


def test_a_tracker_that_fails_is_reported_once(tmp_path, monkeypatch, capfd):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Failing)
    trackers = opened(tmp_path)
    for step in (10, 20, 30):
        trackers.write({"step": step})
    trackers.file(tmp_path / "result.json")
    ended(trackers)
    said = capfd.readouterr().err
    assert said.count("warning: the tracker tensorboard failed at step 10: ConnectionError") == 1
    assert len(said.splitlines()) == 1
    assert "ConnectionError: no route to host." in said
    assert "Traceback" in (tmp_path / opening.LOG).read_text()
    assert fake.made[0].shown == [("file", "result.json"), ("end", "finished")]


def test_a_tracker_that_cannot_be_opened_is_reported_once(tmp_path, monkeypatch, capfd):
    def refuse(place):
        raise RuntimeError("no such project")

    monkeypatch.setitem(opening.TRACKERS, "tensorboard", refuse)
    trackers = opened(tmp_path)
    for step in range(3):
        trackers.write({"step": step})
    ended(trackers)
    said = capfd.readouterr().err
    assert said.startswith("warning: the tracker tensorboard could not be opened: RuntimeError")
    assert len(said.splitlines()) == 1


def test_a_damaged_memory_of_trackers_is_no_reason_to_stop(tmp_path, monkeypatch, capfd):
    fake_trackers.put(monkeypatch, fake_trackers.Recorder)
    (tmp_path / opening.KNOWN).write_text("{")
    ended(opened(tmp_path))
    assert "trackers.json cannot be read as JSON" in capfd.readouterr().err


def test_a_tracker_that_hangs_is_waited_for_no_longer_than_said(tmp_path, monkeypatch, capfd):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Hanging)
    trackers = opened(tmp_path)
    started = time.monotonic()
    for step in range(2 * background.ROOM):
        trackers.write({"step": step})
    assert "is slower than the run, and misses rows" in capfd.readouterr().err
    ended(trackers, seconds=0.2)
    assert time.monotonic() - started < 5
    assert not capfd.readouterr().err  # it was reported
    fake.gate.set()
    trackers.wait(time.monotonic() + 30)
    assert len(fake.made[0].of("write")) <= background.ROOM + 1


def test_a_tracker_that_lags_at_the_end_is_reported(tmp_path, monkeypatch, capfd):
    fake = fake_trackers.put(monkeypatch, fake_trackers.Hanging)
    trackers = opened(tmp_path)
    trackers.write({"step": 1})
    ended(trackers, seconds=0.05)
    assert "has not ended in time; what it shows may lack the last rows" in capfd.readouterr().err
    fake.gate.set()
    trackers.wait(time.monotonic() + 30)


@pytest.mark.parametrize("name", opening.TRACKERS)
def test_a_package_that_is_missing_is_named_with_its_extra(name, monkeypatch):
    monkeypatch.setattr(opening.TRACKERS[name], "package", "no_such_package")
    with pytest.raises(errors.InputError, match=rf"pip install 'triplet_jax\[{name}\]'"):
        opening.check([name])
