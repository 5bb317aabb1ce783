"""Runs that take a step at once, and in turn: both end alike."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.sweeps.vectorised_step import AtOnce, InTurn
from triplet_jax.training import data_parallel
from triplet_jax.training.train_state import TrainState


def step(state, numbers_and_data, device):
    """The loss is the sum of a run's own examples, times its weight."""
    rate, (index, inputs, labels) = numbers_and_data
    loss, slope = jax.value_and_grad(lambda w: jnp.sum(w * inputs[index]) + labels.sum())(
        state.params["w"]
    )
    after = state.replace(step=state.step + 1, params={"w": state.params["w"] - rate * slope})
    return after, {"loss": loss, "telemetry": {"slope": slope}}


def test_runs_at_once_end_as_runs_in_turn():
    weights = jnp.array([1.0, 2.0, 3.0])
    state = TrainState(jnp.int32(4), {"w": weights}, {}, {}, {}, (), None)
    of_state = TrainState(None, 0, 0, 0, 0, 0, None)
    rates = jnp.array([0.1, 0.2, 0.3])
    index, labels = jnp.array([[0], [1], [2]]), jnp.ones((3, 2))
    resident = data_parallel.replicate((index, jnp.array([10.0, 20.0, 30.0]), labels))
    ended = []
    for lift in (AtOnce, InTurn):
        together = lift(step, of_state, rates, resident, state)
        first, second = together.take_step(), together.take_step()
        np.testing.assert_allclose(np.stack(first["loss"]), [12, 42, 92])
        np.testing.assert_allclose(np.stack(second["loss"]), [2, -38, -178])
        np.testing.assert_allclose(np.stack(first["telemetry"]["slope"]), [10, 20, 30])
        ended.append(jax.device_get(together.state))
        one = together.of_run(1)
        assert int(one.step) == 6 and float(one.params["w"]) == ended[-1].params["w"][1]
    at_once, in_turn = ended
    assert at_once.step == in_turn.step == 6
    np.testing.assert_allclose(at_once.params["w"], [-1, -6, -15], rtol=1e-6)
    np.testing.assert_array_equal(at_once.params["w"], in_turn.params["w"])
