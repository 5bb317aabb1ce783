"""The batches of a run: drawn on the device, or loaded from disk."""

import contextlib
import gc
from collections.abc import Callable

import jax
import jax.numpy as jnp

from experiments.config import pk_batches
from experiments.run.offline_mining import OfflineMining
from experiments.run.setup import Setup
from triplet_jax import errors
from triplet_jax.data import on_device
from triplet_jax.devices import collectives
from triplet_jax.training import data_parallel


def step_with_batches(
    run: Setup, first_step: int, mining: OfflineMining | None, resources: contextlib.ExitStack
) -> Callable:
    """A function from one state to the next, over all devices, that finds its own batch.

    Args:
      run: what the run trains with.
      first_step: of the state that it is called with first.
      mining: makes tables that batches are drawn from, or None.
      resources: ends the processes that load batches.
    """
    config = run.config
    batches = (_OnDevice if config.dataset.placement == "device" else _Streamed)(run)
    resources.callback(batches.close)
    index = pk_batches.class_index(config, run.examples)
    if mining is None:
        batches.draw_from(index, first_step, config.train.steps)
        return batches.take_step
    every, at = config.offline.every or config.train.steps, first_step
    near = mining.at_start(at)
    index = index if near is None else index.beside(near)
    if not mining.is_due(at):
        batches.draw_from(index, at, at - at % every + every)

    def take_step(state):
        nonlocal at
        if mining.is_due(at):
            embeddings = run.embed(state.variables, run.examples.inputs)
            batches.draw_from(index.beside(mining.mine(at, embeddings)), at, at + every)
        at += 1
        return batches.take_step(state)

    return take_step


class _OnDevice:
    """Batches drawn inside the compiled step from data that live on every device."""

    def __init__(self, run: Setup):
        draw = pk_batches.draw(run.config, run.trained)
        devices = jax.device_count()
        self._step = data_parallel.in_phases(
            {
                start: data_parallel.resident(data_parallel.drawing(step, draw, devices=devices))
                for start, step in run.steps.items()
            }
        )
        self._examples = data_parallel.replicate(on_device.resident(run.examples))
        self._devices = collectives.own_devices()
        self._index = None

    def draw_from(self, index, first_step, last_step):
        del first_step, last_step
        self._index = data_parallel.replicate(jax.tree.map(jnp.asarray, index))

    def take_step(self, state):
        return self._step(state, (self._index, *self._examples), self._devices)

    def close(self):
        pass


class _Streamed:
    """Batches that worker processes load from disk."""

    def __init__(self, run: Setup):
        self._config, self._examples = run.config, run.examples
        self._step = data_parallel.in_phases(
            {start: data_parallel.streamed(step) for start, step in run.steps.items()}
        )
        self._devices = jax.local_device_count()
        self._batches = None

    def draw_from(self, index, first_step, last_step):
        # Here, since grain takes 0.2 s to import, which few runs need.
        from triplet_jax.data import batch_loading

        self.close()
        self._batches = batch_loading.stream(
            self._examples,
            pk_batches.draw_on_host(self._config, index),
            first_step=first_step,
            steps=min(last_step, self._config.train.steps),
            workers=self._config.dataset.workers,
            shard=jax.process_index(),
            shards=jax.process_count(),
        )

    def take_step(self, state):
        try:
            inputs, labels, places = next(self._batches)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise errors.LostError(
                "a process that loads batches has ended, as one does that the system kills for"
                " want of memory. If it happens again, set dataset.workers lower."
            ) from error
        shape = (self._devices, len(labels) // self._devices)
        inputs = inputs.reshape(*shape, *inputs.shape[1:])
        return self._step(state, inputs, labels.reshape(shape), places.reshape(shape))

    def close(self):
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            gc.collect()  # the last batch, in shared memory, which lives in a cycle of references
