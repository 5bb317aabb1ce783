"""How runs that are trained together take a step: all at once, or in turn."""

import jax
import numpy as np

from triplet_jax.devices import collectives
from triplet_jax.training import data_parallel, train_state


class AtOnce:
    """Runs that take one step at once, by `vmap`.

    Args:
      step: `(state, (numbers, resident), device) -> (state, metrics)` of one run.
      of_state: the axis of runs in each field of a state.
      numbers: what differs among the runs, with an axis of runs.
      resident: class indices, inputs and labels. The inputs are shared; the others have an axis
        of runs.
      state: of all runs.
    """

    def __init__(self, step, of_state, numbers, resident, state):
        self.state = data_parallel.replicate(state)
        axes = (of_state, (0, (0, None, 0)), None)
        self._step = data_parallel.resident(jax.vmap(step, in_axes=axes, out_axes=(of_state, 0)))
        self._inputs = (data_parallel.replicate(numbers), resident)
        self._devices = collectives.own_devices()

    def take_step(self) -> dict:
        """The metrics of all runs by name, each with an axis of runs."""
        self.state, metrics = self._step(self.state, self._inputs, self._devices)
        return metrics

    def of_run(self, i: int) -> train_state.TrainState:
        return state_of(self.state, i)


class InTurn:
    """Runs that take the same compiled step in turn. The arguments are those of `AtOnce`."""

    def __init__(self, step, of_state, numbers, resident, state):
        del of_state
        index, inputs, labels = resident
        self._step = data_parallel.resident(step)
        count = len(labels)
        self._states = [data_parallel.replicate(state_of(state, i)) for i in range(count)]
        self._inputs = [
            data_parallel.replicate(jax.tree.map(lambda x, i=i: x[i], (numbers, index, labels)))
            for i in range(count)
        ]
        self._examples, self._devices = inputs, collectives.own_devices()

    def take_step(self) -> dict:
        """The metrics of all runs by name, each a list over runs."""
        metrics = []
        for i, (numbers, index, labels) in enumerate(self._inputs):
            inputs = (numbers, (index, self._examples, labels))
            self._states[i], mine = self._step(self._states[i], inputs, self._devices)
            metrics.append(mine)
        # Telemetry is a tree of its own, and the list goes under its names.
        return jax.tree.map(lambda *of_runs: list(of_runs), *metrics)

    def of_run(self, i: int) -> train_state.TrainState:
        return self._states[i]

    @property
    def state(self) -> train_state.TrainState:
        first, *_ = states = jax.device_get(self._states)
        stacked = jax.tree.map(lambda *of_runs: np.stack(of_runs), *states)
        return stacked.replace(step=first.step)


def state_of(states, i):
    """The state of the run at this place among them."""
    mine = jax.tree.map(lambda x: x[i], states.replace(step=None))
    return mine.replace(step=states.step)
