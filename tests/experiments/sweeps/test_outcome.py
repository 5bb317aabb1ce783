"""What is gathered from the files of a sweep's runs, whole, missing or damaged."""

import json

import numpy as np
import pytest

from experiments.sweeps import outcome, plan
from tests.support import small_sweeps
from triplet_jax import errors


@pytest.fixture
def sweep(tmp_path):
    """The runs of a sweep of one arm, of which the first is done, and its folder."""
    made = small_sweeps.made(arms=(("one", {}),), seeds=(0, 1))
    plan.remember(made, tmp_path)
    runs = plan.plan(made, tmp_path)
    small_sweeps.finish(runs[0], 0.9, 0.8)
    return runs, tmp_path


def test_runs_that_have_not_begun_have_no_scores(sweep):
    _, workdir = sweep
    found = outcome.read(workdir).runs
    assert list(found.state) == ["done", "waiting"]
    assert list(found.steps) == [60, 0]
    np.testing.assert_array_equal(found.score, [0.8, np.nan])
    assert list(found.error) == [""] * 2


def test_a_collapse_is_told_from_the_step_that_shows_it(sweep):
    runs, workdir = sweep
    small_sweeps.finish(runs[1], 0.9, 0.8)
    rows = [
        {"step": step, "loss": 0.2, "mean_d_an": 0.5, "mean_d_ap": 0.4, "embedding_norm": 1.0}
        | {"embedding_spread": 0.9 if step <= 20 else 0.01}
        for step in range(10, 90, 10)
    ]
    (runs[1].folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = outcome.read(workdir)
    np.testing.assert_array_equal(found.runs.collapsed_at, [np.nan, 70])
    hardness = found.curves[found.curves.seed == 1].hardness
    np.testing.assert_allclose(hardness, [0.1] * 8)


def test_a_folder_whose_runs_are_of_something_else_is_refused(sweep):
    runs, workdir = sweep
    row = {"step": 60, "loss": 0.1, "mean_d_an": 0.5}
    (runs[0].folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(errors.InputError, match=r"seed0 is damaged: .*\(KeyError\('mean_d_ap'\)\)"):
        outcome.read(workdir)


def test_a_sweep_without_a_finished_run_has_no_outcome(sweep):
    runs, workdir = sweep
    (runs[0].folder / "result.json").unlink()
    with pytest.raises(errors.InputError, match="no run is finished yet. Run the sweep first"):
        outcome.read(workdir)
