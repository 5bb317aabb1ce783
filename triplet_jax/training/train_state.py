"""The state of a run: everything that a step changes."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from triplet_jax import schedules
from triplet_jax.training import cross_batch_memory


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. It has no device axis."""

    # Any, since jax fills trees with what is no array: shapes, shardings, None.
    step: Any
    """How many steps were taken, an integer."""
    params: Any
    batch_stats: Any
    """Running averages of batch normalisation, and statistics of standardised features."""
    learned: Any
    """Numbers and tables of the loss that are learned, by name; empty where there are none."""
    pace: Any
    """A `schedules.Pace` for each self-paced number, by its field."""
    opt_state: Any
    average: Any
    """A moving average of the parameters for evaluation, or None."""

    memory = None  # no field: a checkpoint of a run without memory knows of none

    @property
    def variables(self) -> dict[str, Any]:
        """What the encoder is evaluated with: the average of the parameters if there is one."""
        params = self.params if self.average is None else self.average
        return {"params": params, "batch_stats": self.batch_stats}


class StateWithMemory(TrainState):
    """That of a run with a memory across batches."""

    memory: Any
    """A `cross_batch_memory.Memory`."""


def init_state(
    encoder: nn.Module,
    optimizer: optax.GradientTransformation,
    example: Float[Array, "1 ..."],
    *,
    key: PRNGKeyArray,
    averaged: bool,
    learned: dict[str, Any] | None = None,
    pace: dict[str, schedules.Pace] | None = None,
    remembered: cross_batch_memory.Memory | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      encoder: the model.
      optimizer: the optimizer of its parameters.
      example: a batch of one input, for its shape.
      key: of the initial weights.
      averaged: whether a moving average of the parameters is kept.
      learned: where the learned numbers and tables of the loss start.
      pace: where the self-paced numbers start.
      remembered: the memory across batches, if there is one.
    """
    variables = jax.jit(encoder.init)(key, example)
    params = variables["params"]
    learned = {name: jnp.float32(value) for name, value in (learned or {}).items()}
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        learned=learned,
        pace=pace or {},
        opt_state=optimizer.init((params, learned)),
        average=params if averaged else None,
    )
    return state if remembered is None else with_memory(state, remembered)


def with_memory(state: TrainState, remembered: cross_batch_memory.Memory) -> StateWithMemory:
    """The state with a memory beside it."""
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(TrainState)}
    return StateWithMemory(**fields, memory=remembered)
