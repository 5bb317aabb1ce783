"""The step of one device, lifted over all devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from triplet_jax.devices import collectives


def over_devices(step: Callable) -> Callable:
    """Lifts `step(state, inputs, labels, places)` over all devices.

    The result takes the state and the batch with a leading axis of devices, and gives
    the next state and the metrics, which have none.
    """
    return collectives.over_devices(step, in_axes=(None, 0, 0, 0), donate_argnums=0)


def draw_and_step(step: Callable, draw: Callable, *, devices: int) -> Callable:
    """A step that draws its own batch from data that live on the device.

    Args:
      step: `(state, inputs, labels, places)`.
      draw: `(index, state) -> positions` of the global batch in the data.
      devices: how many share the batch.

    Returns:
      A function of the state, of a class index, inputs and labels, and of the device's number.
    """

    def of_device(state, resident, device):
        index, inputs, labels = resident
        batch = draw(index, state)
        rows = len(batch) // devices
        mine = jax.lax.dynamic_slice_in_dim(batch, device * rows, rows)
        return step(state, inputs[mine], labels[mine], mine)

    return of_device


def over_devices_resident(step: Callable) -> Callable:
    """Lifts what `draw_and_step` gives over all devices.

    The result takes the state, the resident data (on every device: see `replicate`) and
    `collectives.own_devices()`.
    """
    return collectives.over_devices(step, in_axes=(None, None, 0), donate_argnums=0)


def replicate(tree: PyTree) -> PyTree:
    """Puts a copy of every array on every device of this process, once."""
    identity = collectives.over_devices(lambda tree, _: tree, in_axes=(None, 0))
    return identity(tree, jnp.arange(jax.local_device_count()))
