"""The time of a run is that of all its processes."""

import json
import time

import pytest

from triplet_jax import errors
from triplet_jax.runs import stopwatch


def test_the_seconds_of_killed_processes_are_kept(tmp_path):
    path = tmp_path / "seconds.json"
    assert stopwatch.read(path) == []
    for seconds in (100.0, 20.0, 3.0):
        watch = stopwatch.Stopwatch(path, started=time.perf_counter() - seconds)
        watch.note()  # and the process is killed
        watch.note()  # which comes too soon to be written
    found = stopwatch.read(path)
    assert found == pytest.approx([100, 20, 3], abs=0.5)
    watch.note(now=True)
    assert stopwatch.read(path)[:2] == found[:2]
    assert stopwatch.read(path)[2] > found[2]


@pytest.mark.parametrize("seconds", [3, [True], [-1.0], ["x"]])
def test_a_damaged_file_is_refused(tmp_path, seconds):
    path = tmp_path / "seconds.json"
    path.write_text(json.dumps({"seconds_of_processes": seconds}))
    with pytest.raises(errors.InputError, match="seconds.json is damaged"):
        stopwatch.Stopwatch(path, started=0.0)
