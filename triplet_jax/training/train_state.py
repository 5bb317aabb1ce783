"""The state of a run: everything that a step changes."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from triplet_jax import schedules
from triplet_jax.models import standardise
from triplet_jax.training import cross_batch_memory, label_filter

# Fields of which a checkpoint has no entry where they are None.
_OPTIONAL = ("memory", "thresholds")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step changes. It has no device axis."""

    # Any, since jax also puts shapes, shardings and None in place of arrays.
    step: Any
    """The number of steps taken, an integer."""
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
    memory: Any = None
    """A `cross_batch_memory.Memory`, or None."""
    thresholds: Any = None
    """The `label_filter.Thresholds`, or None."""

    @property
    def variables(self) -> dict[str, Any]:
        """What the encoder is evaluated with: the average of the parameters if there is one."""
        params = self.params if self.average is None else self.average
        return {"params": params, "batch_stats": self.batch_stats}

    def replace(self, **fields: Any) -> "TrainState":
        """The state with other values in these fields."""
        return dataclasses.replace(self, **fields)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """The fields by name. A checkpoint of a run without memory has no entry for one."""
        names = [field.name for field in dataclasses.fields(self)]
        names = [n for n in names if n not in _OPTIONAL or getattr(self, n) is not None]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], (*names,)

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Any]) -> "TrainState":
        """The state of these values."""
        return cls(**dict(zip(names, values, strict=True)))


def init_state(
    encoder: nn.Module,
    optimizer: optax.GradientTransformation,
    example: Float[Array, "1 ..."],
    *,
    key: PRNGKeyArray,
    averaged: bool,
    learned: dict[str, Any] | None = None,
    pace: dict[str, schedules.Pace] | None = None,
    memory: cross_batch_memory.Memory | None = None,
    thresholds: label_filter.Thresholds | None = None,
    given: dict[str, Any] | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      encoder: the model.
      optimizer: of the parameters and of what the loss learns.
      example: a batch of one input, of which only the shape counts.
      key: of the initial weights.
      averaged: whether a moving average of the parameters is kept.
      learned: the first values of the learned numbers and tables of the loss, by name.
      pace: the first values of the self-paced numbers, by field.
      memory: the memory across batches, or None.
      thresholds: the first ones of `label_filter`, or None.
      given: arrays that take the place of the encoder's random ones, nested as its variables.
    """
    variables = standardise.put(jax.jit(encoder.init)(key, example), given or {})
    params = variables["params"]
    learned = {name: jnp.float32(value) for name, value in (learned or {}).items()}
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        learned=learned,
        pace=pace or {},
        opt_state=optimizer.init((params, learned)),
        average=params if averaged else None,
        memory=memory,
        thresholds=thresholds,
    )
