"""Data parallelism: the step of one device becomes a step over all devices, each with its rows."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from triplet_jax.devices import allocator, collectives


def streamed(step: Callable) -> Callable:
    """The step over all devices, of batches that come from outside.

    Args:
      step: of one device, `(state, inputs, labels, places) -> (state, metrics)`.

    Returns:
      A function of the state, and of inputs, labels and places `[devices, rows, ...]`. It gives the
      next state and the metrics, which have no axis of devices, and donates the state it is given.
    """
    return _compiled_apart(step, in_axes=(None, 0, 0, 0))


def resident(step: Callable) -> Callable:
    """The step over all devices, of batches drawn from data that live on every device.

    Args:
      step: what `drawing` makes of the step of one device.

    Returns:
      A function of the state, the data (put on every device by `replicate`), and
      `collectives.own_devices()`. It donates the state it is given.
    """
    return _compiled_apart(step, in_axes=(None, None, 0))


def _compiled_apart(step: Callable, *, in_axes: tuple[int | None, ...]) -> Callable:
    """The step over all devices, which is compiled before its first call and not within it.

    In between, the memory that compiling took is given back: on a CPU the step would add its own.
    """
    over_devices = collectives.over_devices(step, in_axes=in_axes, donate_argnums=0)
    is_compiled = False

    def call(*args: Any) -> Any:
        nonlocal is_compiled
        if not is_compiled:
            over_devices.lower(*args).compile()  # jax keeps the program for the calls
            allocator.trim()
            is_compiled = True
        return over_devices(*args)

    return call


def in_phases(steps: Mapping[int, Callable]) -> Callable:
    """Joins several steps into one function, each for a phase of the run.

    Args:
      steps: functions of a state and more, by the first step of each, of which one is 0.

    Returns:
      A function of the same arguments, to be called with one state after the other.
    """
    if len(steps) == 1:
        return steps[0]
    at = None

    def call(state: Any, *args: Any) -> Any:
        nonlocal at
        # Counted here, since reading it from each state would wait for the step before.
        at = int(state.step) if at is None else at + 1
        return steps[max(start for start in steps if start <= at)](state, *args)

    return call


def drawing(step: Callable, draw: Callable, *, devices: int) -> Callable:
    """The step of one device with a batch that it draws itself.

    Args:
      step: `(state, inputs, labels, places) -> (state, metrics)`.
      draw: `(index, inputs, state) -> positions` of the global batch in the data.
      devices: how many share the batch.

    Returns:
      `(state, (index, inputs, labels), device) -> (state, metrics)`, where the index is of classes,
      and `device` is the device's number.
    """

    def of_device(state, data, device):
        index, inputs, labels = data
        batch = draw(index, inputs, state)
        rows = len(batch) // devices
        mine = jax.lax.dynamic_slice_in_dim(batch, device * rows, rows)
        return step(state, inputs[mine], labels[mine], mine)

    return of_device


def replicate(tree: PyTree) -> PyTree:
    """Puts a copy of every array on every device of this process, once."""
    identity = collectives.over_devices(lambda tree, _: tree, in_axes=(None, 0))
    return identity(tree, jnp.arange(jax.local_device_count()))
