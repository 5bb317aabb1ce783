"""From the fields of a config to the first state of a run, and its step."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from experiments.config import objective, optimizers, settings
from triplet_jax.devices import collectives
from triplet_jax.models import standardise
from triplet_jax.training import cross_batch_memory, train_state, train_step


def initial_state(
    config: ml_collections.ConfigDict,
    encoder: nn.Module,
    input_shape: tuple[int, ...],
    measured: dict | None = None,
) -> train_state.TrainState:
    """The state before the first step, of the config's seed.

    `measured` is what `input_statistics` gives; where a checkpoint is read into the state it is
    not needed, since that holds it.
    """
    init_key, _ = settings.keys(config)
    state = train_state.init_state(
        encoder,
        optimizers.optimizer(config),
        jnp.zeros((1, *input_shape)),
        key=init_key,
        averaged=config.optimizer.average_decay > 0,
        learned=objective.learned(config),
        pace=settings.first_pace(config),
        remembered=cross_batch_memory.empty(config.memory.size, objective.dim(config))
        if config.memory.size
        else None,
    )
    return state.replace(batch_stats=standardise.put(state.batch_stats, measured or {}))


def step(
    config: ml_collections.ConfigDict, encoder: nn.Module, augment: Callable | None
) -> Callable:
    """The step of one device, `(state, inputs, labels)`."""
    return functools.partial(
        train_step.train_step,
        encoder=encoder,
        optimizer=optimizers.optimizer(config),
        loss=objective.loss(config),
        augment=augment,
        average_decay=config.optimizer.average_decay,
        learning_rate=optimizers.learning_rate(config),
        moving=settings.moving(config),
        next_pace=settings.next_pace(config),
        telemetry=objective.telemetry(config),
        memory_start=config.memory.start,
        memory_of_average=config.memory.of_average,
        shown=functools.partial(objective.shown, config),
        micro_batches=config.train.micro_batches,
        positive=objective.POSITIVE,
        key=settings.keys(config)[1],
        axis_name=collectives.DEVICES,
    )
