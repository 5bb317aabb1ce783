"""What a run says at its start and at its end, where no step is taken in between."""

import dataclasses

import jax.numpy as jnp
import pytest

from experiments.config import datasets
from experiments.run import config_json, evaluating, training
from tests.support import bare_runs
from triplet_jax import mining
from triplet_jax.runs import health
from triplet_jax.runs.checkpoint import Checkpoints

STEPS = 20
FIELDS = {"train__steps": STEPS, "train__patience": 2, "evaluate__every": 5}


@pytest.fixture
def run_with(tmp_path, monkeypatch):
    """Runs with another function in the place of the loop over steps."""
    monkeypatch.setattr(training.check, "check", lambda config: None)  # as it is when it is read
    monkeypatch.setattr(evaluating, "evaluate", lambda *given, **rest: {"trained_steps": 1})

    def run(loop, goes_on=None, **fields):
        monkeypatch.setattr(training.loop, "train", loop)
        shares = {"dataset__test_fraction": 0.2, "dataset__validation_fraction": 0.2}
        workdir = bare_runs.write(tmp_path / "run", **FIELDS | shares | fields)
        training.train(config_json.read(workdir), workdir, goes_on)

    return run


def test_numbers_that_are_not_finite_end_a_run_with_the_way_back(run_with, tmp_path):
    def loop(state, take_step, *, save, **rest):
        save(10, state.replace(step=jnp.int32(10)), 0.5)
        raise health.NotFiniteError("loss=nan of step 13 is not finite.")

    with pytest.raises(health.NotFiniteError) as error:
        run_with(loop)
    assert str(error.value) == (
        "loss=nan of step 13 is not finite. The last good checkpoint: step 10 in"
        f" {tmp_path / 'run' / 'checkpoints'}. Try a smaller optimizer.learning_rate or"
        " optimizer.clip_norm=1.0 in a new --workdir."
    )
    assert Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).steps == [10]


def test_a_run_that_its_study_stops_is_saved_and_not_evaluated(run_with, monkeypatch, capsys):
    asked = []

    def goes_on(step, scores):
        asked.append(step)
        return step < 10

    def loop(state, take_step, *, score, stop, **rest):
        for step in (5, 10, STEPS):
            scores = score(state.replace(step=jnp.int32(step)))
            assert scores == {"map_at_r": 0.5}
            if stop.before(step):
                return state.replace(step=jnp.int32(step))
        raise AssertionError("it was not stopped")

    monkeypatch.setattr(training.Setup, "validate", lambda self, state: {"map_at_r": 0.5})
    monkeypatch.setattr(evaluating, "evaluate", None)
    run_with(loop, goes_on)
    assert asked == [5, 10]
    said = capsys.readouterr().out
    assert f"stopped by the study that it belongs to and saved at step 10 of {STEPS}." in said


def test_what_is_to_be_known_at_the_start_and_at_an_early_end_is_said(
    run_with, monkeypatch, capsys
):
    def mine(*given):
        return mining.MINERS["semi_hard"](*given)

    opened = datasets.dataset

    def noted(config, **rest):
        return dataclasses.replace(opened(config, **rest), notes=("path='x' was left out",))

    def loop(state, take_step, *, patience, **rest):
        for score in (0.5, 0.4, 0.4):
            patience.note(score)
        return state.replace(step=jnp.int32(15))

    monkeypatch.setitem(mining.MINERS, "mine", mine)
    monkeypatch.setattr(datasets, "dataset", noted)
    run_with(loop, mining__miner="mine")
    said = capsys.readouterr().out
    assert "dataset.path='x' was left out" in said
    assert "warning: mining.miner='mine' is known to this process alone" in said
    assert f"stopped early at step 15 of {STEPS}: the validation MAP@R" in said
    assert "has not risen above 0.5000 in 2 evaluations" in said
