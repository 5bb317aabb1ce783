"""Arms that are tuned alike: what is tried, what is chosen, and what the reports say of it."""

import html
import json
import math

import numpy as np
import pytest

from configs import digits
from configs.sweeps import base, drawn, label_noise, pacing, ranking
from configs.tune.base import between
from experiments import sweep as sweep_program
from experiments.sweeps import arm_trials, execution, executors, plan
from tests.support import small_sweeps
from triplet_jax import errors

RATES = ({"optimizer.learning_rate": 1e-3}, {"optimizer.learning_rate": 3e-3})
MARGINS = ({"loss.margin": 0.2}, {"loss.margin": 0.7})


def sweep_of(**fields):
    """Two arms in two settings, with two trials each."""
    run = digits.get_config()
    run.update_from_flattened_dict(small_sweeps.SMALL | {"batch.per_class": 8})
    sweep = base.get_config(run)
    sweep.arms = (("rate", {}), ("margin", {"mining.miner": "batch_hard"}))
    sweep.settings = (("clean", {}), ("noisy", {"dataset.label_noise": 0.3}))
    sweep.trials = (("rate", RATES), ("margin", MARGINS))
    sweep.reference, sweep.seeds, sweep.trial_seeds = "rate", (0, 1), (7, 8)
    sweep.update(fields)
    return sweep


def scores(run):
    """On validation the second rate is better with clean labels, and the second margin always.

    On test the order is the other one, so that a choice by it is seen.
    """
    second = run.config.optimizer.learning_rate > 2e-3 or run.config.loss.margin > 0.5
    wins = second != (run.setting == "noisy" and run.config.mining.miner == "semi_hard")
    small = 0.002 * run.seed
    return (0.9 + small, 0.5) if wins else (0.8 + small, 0.95)


@pytest.fixture
def engine(monkeypatch):
    """An engine that trains nothing; it returns the names of the runs that it was given."""
    seen = []

    def fake(planned, sweep, show):
        for run in planned:
            if not run.has_ended:
                seen.append(run.name)
                small_sweeps.finish(run, *scores(run))

    monkeypatch.setitem(executors.ENGINES, "vectorised", fake)
    return seen


def carried_out(sweep, workdir):
    """Does what experiments.sweep does; the runs of the comparison."""
    workdir.mkdir(exist_ok=True)
    plan.remember(sweep, workdir)
    chosen = execution.choose(sweep, arm_trials.plan(sweep, workdir))
    planned = plan.plan(sweep, workdir, chosen)
    execution.carry_out(sweep, planned, workdir)
    return planned


def test_the_validation_split_chooses_in_each_setting_and_what_is_finished_stays(tmp_path, engine):
    sweep = sweep_of()
    before = arm_trials.plan(sweep, tmp_path / "out")[0].runs[0]
    small_sweeps.finish(before, *scores(before))
    planned = carried_out(sweep, tmp_path / "out")
    assert len(engine) == 2 * 2 * 2 * 2 + 2 * 2 * 2 - 1
    assert engine[:2] == ["clean rate.0 seed 8", "clean rate.1 seed 7"]
    fields = {
        (run.setting, run.arm): (run.config.optimizer.learning_rate, run.config.loss.margin)
        for run in planned
    }
    assert fields == {
        ("clean", "rate"): (3e-3, 0.3),
        ("noisy", "rate"): (1e-3, 0.3),
        ("clean", "margin"): (1e-3, 0.7),
        ("noisy", "margin"): (1e-3, 0.7),
    }
    assert {run.seed for run in planned} == {0, 1}


def test_the_reports_say_what_was_tried_and_chosen(tmp_path, engine, capsys):
    carried_out(sweep_of(), tmp_path / "out")
    assert "map_at_r 0.9500" not in capsys.readouterr().out.split("8 runs:")[0]
    document = (tmp_path / "out" / "summary.md").read_text()
    page = html.unescape((tmp_path / "out" / "report.html").read_text())
    cells = ["noisy", "rate", "2", "optimizer.learning_rate 0.001", "0.915", "0.901", "0.500"]
    assert f"| {' | '.join(cells)} |" in document
    assert "".join(f"<td>{cell}</td>" for cell in cells) in page
    assert "16 runs of trials" in document
    table = page[page.index("All 8 trials") :]
    row = "<td>noisy</td><td>rate</td><td>0 chosen</td>"
    assert f"{row}<td><code>optimizer.learning_rate = 0.001</code> </td><td>0.9150</td>" in table


def test_a_sweep_without_trials_says_nothing_of_them(tmp_path, engine):
    sweep = sweep_of(trials=())
    assert arm_trials.plan(sweep, tmp_path) == []
    tmp_path.joinpath("out").mkdir()
    plan.remember(sweep, tmp_path / "out")
    execution.carry_out(sweep, plan.plan(sweep, tmp_path / "out"), tmp_path / "out")
    for name in ("summary.md", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "trial" not in text[: text.find("<script>")].lower()


def test_a_trial_that_failed_is_not_chosen_and_an_arm_needs_one(tmp_path):
    trials = [t for t in arm_trials.plan(sweep_of(), tmp_path) if t.setting == "clean"][:2]
    trials[0].runs[0].fail("not finite")
    small_sweeps.finish(trials[0].runs[1], 0.99, 0.99)
    for run in trials[1].runs:
        small_sweeps.finish(run, 0.2, 0.2)
    assert trials[0].value("map_at_r") == -math.inf
    assert arm_trials.chosen(trials, "map_at_r") == {("clean", "rate"): trials[1]}
    with pytest.raises(errors.InputError, match=r"arm 'rate' in setting 'clean': all of its tri"):
        arm_trials.chosen(trials[:1], "map_at_r")


@pytest.mark.parametrize(
    "field",
    [
        {"evaluate.augment": ("flip",)},  # which validation does not see
        {"evaluate.ignore_group": True},
        {"dataset.validation_fraction": 0.3},
    ],
)
def test_trials_that_would_be_judged_otherwise_are_refused(tmp_path, field):
    trials = (("rate", ({}, field)), ("margin", MARGINS))
    with pytest.raises(errors.InputError, match=f"'rate' tries '{next(iter(field))}'"):
        arm_trials.plan(sweep_of(trials=trials), tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trials": (("rate", RATES), ("margin", MARGINS[:1]))}, "they have rate 2, margin 1"),
        ({"trials": (("rate", RATES),)}, "they have rate 2, margin 0"),
        ({"trials": (("rate", RATES), ("margn", MARGINS))}, "Did you mean 'margin'"),
        ({"trials": (("rate", ({"loss.margin": -1.0},)), ("margin", ({},)))}, "loss.margin=-1.0"),
        ({"trials": (("rate", (1e-3, 3e-3)), ("margin", MARGINS))}, "'rate' lists 0.001, which is"),
        ({"trial_seeds": (1, 2)}, r"share \[1\]"),
        ({"trial_seeds": ()}, r"trial_seeds=\(\) must"),
        ({"metric": "recall_at_2"}, "metric, where there are trials,='recall_at_2'"),
    ],
)
def test_unequal_tuning_is_refused(tmp_path, fields, message):
    with pytest.raises(errors.InputError, match=message):
        arm_trials.plan(sweep_of(**fields), tmp_path)


def test_arms_that_share_a_field_try_the_same_values_all_over_its_range():
    rate, margin = between(1e-4, 1e-2, log=True), between(-1.0, 1.0)
    alone = drawn.settings({"rate": rate}, 8)
    both = drawn.settings({"margin": margin, "rate": rate}, 8)
    assert [trial["rate"] for trial in alone] == [trial["rate"] for trial in both]
    parts = np.floor(4 * np.log10(np.array([trial["rate"] for trial in both]) / 1e-4))
    assert sorted(parts) == [*range(8)]
    assert sorted(np.floor(4 * (np.array([t["margin"] for t in both]) + 1))) == [*range(8)]


@pytest.mark.parametrize("config", [label_noise, pacing, ranking])
def test_the_arms_of_tuned_sweeps_can_be_trained(config, tmp_path):
    sweep = config.get_config()
    sweep.settings = sweep.settings[-1:]
    sweep.trials = tuple((arm, tried[:1]) for arm, tried in sweep.trials)
    assert len(arm_trials.plan(sweep, tmp_path)) == len(sweep.arms)


@pytest.mark.slow
def test_the_program_goes_on_from_the_trials_to_the_comparison(tmp_path):
    trials = "(('semi_hard', ({'loss.margin': 0.2}, {'loss.margin': 0.4})),)"
    arms = "    sweep.arms = (('semi_hard', {}),)\n"
    path = small_sweeps.config_file(tmp_path, arms, f"    sweep.trials = {trials}\n")
    done = small_sweeps.finished(path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 runs: 1 arms x 1 settings x 2 trials x 1 seeds; 2 to do" in done.stdout
    assert "2 runs: 1 arms x 1 settings x 2 seeds; 2 to do" in done.stdout
    chosen = json.loads((tmp_path / "out/runs/semi_hard/seed0/config.json").read_text())
    assert chosen["loss"]["margin"] in (0.2, 0.4)


def test_runs_of_another_trial_than_is_chosen_now_are_refused(tmp_path, engine):
    sweep = sweep_of()
    chosen = execution.choose(sweep, arm_trials.plan(sweep, tmp_path))
    planned = plan.plan(sweep, tmp_path, chosen)
    run = next(run for run in planned if run.arm == "margin")
    small_sweeps.finish(run, 0.9, 0.9)
    sweep_program._check_chosen(planned)
    other = plan.plan(sweep_of(arms=(("rate", {}), ("margin", {}))), tmp_path, chosen)
    with pytest.raises(errors.InputError, match="another trial than is chosen now:\n.*miner"):
        sweep_program._check_chosen(other)


def test_a_sweep_without_validation_scores_says_so(tmp_path):
    trials = arm_trials.plan(sweep_of(), tmp_path)[:1]
    for run in trials[0].runs:
        small_sweeps.finish(run, float("nan"), 0.5)
    with pytest.raises(errors.InputError, match="no trial has a validation score"):
        arm_trials.chosen(trials, "map_at_r")
