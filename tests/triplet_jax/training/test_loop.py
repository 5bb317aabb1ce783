"""What happens after which step, and what is saved where somebody asks to stop."""

from unittest import mock

import jax
import numpy as np
import pytest

from triplet_jax.devices.signals import Stop
from triplet_jax.runs import health
from triplet_jax.training import loop, patience, train_state


def test_a_schedule_says_what_happens_after_which_step():
    schedule = loop.Schedule(steps=25, log_every=10, telemetry_every=4, evaluate_every=12)
    steps = range(1, 26)
    assert [s for s in steps if schedule.logs(s)] == [10, 20, 25]
    assert [s for s in steps if schedule.evaluates(s)] == [12, 24, 25]
    assert [s for s in steps if schedule.measures(s)] == [4, 8, 12, 16, 20, 24]


def test_telemetry_that_is_off_is_never_measured():
    schedule = loop.Schedule(steps=5, log_every=1, telemetry_every=0, evaluate_every=1)
    assert not any(schedule.measures(step) for step in range(1, 6))


def trained(loss, stop, log_every=10):
    """The steps and scores of what is saved by a run of ten steps, evaluated after every fourth."""
    saved, state = [], mock.Mock(spec=train_state.TrainState, step=0)

    def take_step(state):
        stop.taken = getattr(stop, "taken", 0) + 1
        if stop.taken == 6 and isinstance(stop, Stop):
            stop.ask("no time")
        return state, {"loss": np.float32(loss(stop.taken)), "learning_rate": np.float32(0.1)}

    loop.train(
        state,
        take_step,
        schedule=loop.Schedule(10, log_every=log_every, telemetry_every=0, evaluate_every=4),
        score=lambda state: {"map": 0.5},
        score_name="map",
        save=lambda step, state, score: saved.append((step, score)),
        journal=None,
        stop=stop,
        patience=patience.Patience(0),
    )
    return saved


def test_a_run_that_is_asked_to_stop_saves_the_steps_since_it_last_did():
    assert trained(lambda step: 0.25, Stop()) == [(4, 0.5), (6, None)]


def test_a_state_that_is_not_finite_is_not_saved_where_a_run_stops():
    with pytest.raises(health.NotFiniteError, match="Step 6 is not finite: loss=nan"):
        trained(lambda step: np.nan if step == 6 else 0.25, Stop())


def test_several_processes_on_cpus_take_one_step_at_a_time(monkeypatch):
    waited = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waited.append(float(x["loss"])))
    stop = mock.Mock(spec=Stop, signal=None)
    stop.before.side_effect = lambda step: step == 3
    assert trained(float, stop) == [(3, None)]
    assert set(waited) == {1.0, 2.0, 3.0}
