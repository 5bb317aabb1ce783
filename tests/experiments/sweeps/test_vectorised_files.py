"""The files of runs that are trained together, where one of them fails."""

import contextlib
import json
import types

from experiments.sweeps.vectorised_files import Logger
from tests.support import small_sweeps


def test_a_run_whose_numbers_are_not_finite_fails_and_writes_no_more(tmp_path):
    run, shown = small_sweeps.a_run(tmp_path), []
    tracker = types.SimpleNamespace(write=shown.append, end=shown.append)
    good = {"loss": 0.5, "learning_rate": 0.001}
    with contextlib.ExitStack() as resources:
        logger = Logger(run, 0, True, tracker, resources)
        logger.metrics([(9, good), (10, good)], write=True)
        logger.validation(10, {"map_at_r": 0.25})
        logger.validation(10, {})
        logger.metrics([(11, good | {"loss": float("nan")}), (12, good)], write=False)
        logger.metrics([(13, good | {"loss": float("inf")})], write=True)
        logger.validation(20, {"map_at_r": 0.5})
    rows = [json.loads(row) for row in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 10, **good}, {"step": 10, "validation/map_at_r": 0.25}]
    assert run.state == "failed"
    error = "Step 11 is not finite: loss=nan at learning rate 0.001.\n"
    assert run.error_file.read_text() == error
    assert shown == [*rows, "failed"]
    with contextlib.ExitStack() as resources:  # the group goes on without it
        again = Logger(run, 10, True, tracker, resources)
        again.metrics([(11, good)], write=True)
    assert (run.folder / "metrics.jsonl").read_text().count("\n") == 2
