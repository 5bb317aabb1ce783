"""From the fields of a config to the first state of a run, its step, and its schedule."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from experiments.config import objective, optimizers, pk_batches, settings
from triplet_jax.devices import collectives
from triplet_jax.models import encoder_parts
from triplet_jax.training import cross_batch_memory, label_filter, loop, train_state, train_step


def initial_state(
    config: ml_collections.ConfigDict,
    encoder: nn.Module,
    input_shape: tuple[int, ...],
    given: dict | None = None,
) -> train_state.TrainState:
    """The state before the first step, of the config's seed.

    `given` holds the arrays that take the place of random ones, nested as the encoder's variables:
    published weights, and the statistics that `encoders.input_statistics` measures. It may be left
    out where only the shapes of the state count.
    """
    init_key, _ = settings.keys(config)
    return train_state.init_state(
        encoder,
        optimizers.optimizer(config, encoder),
        jnp.zeros((1, *input_shape)),
        key=init_key,
        averaged=config.optimizer.average_decay > 0,
        learned=objective.learned(config),
        pace=settings.first_pace(config),
        memory=cross_batch_memory.empty(config.memory.size, objective.dim(config))
        if config.memory.size
        else None,
        thresholds=label_filter.first_thresholds(config.memory.noise_window)
        if _filters_labels(config)
        else None,
        given=given,
    )


def step(
    config: ml_collections.ConfigDict, encoder: encoder_parts.Applied, augment: Callable | None
) -> Callable:
    """The step of one device, `(state, inputs, labels, places) -> (state, metrics)`."""
    return functools.partial(train_step.train_step, recipe=_recipe(config, encoder, augment))


def steps(
    config: ml_collections.ConfigDict, encoder: encoder_parts.Applied, augment: Callable | None
) -> dict[int, Callable]:
    """Steps for the phases of a run, each a program of its own, by the step where it begins."""
    recipes = train_step.phases(_recipe(config, encoder, augment))
    return {
        start: functools.partial(train_step.train_step, recipe=recipe)
        for start, recipe in recipes.items()
    }


def _recipe(config, encoder, augment):
    return train_step.Recipe(
        encoder=encoder,
        optimizer=optimizers.optimizer(config, encoder),
        loss=objective.loss(config),
        learning_rate=optimizers.learning_rate(config),
        key=settings.keys(config)[1],
        axis_name=collectives.DEVICES,
        augment=augment,
        micro_batches=config.train.micro_batches,
        backbone_start=config.optimizer.backbone_start,
        average_decay=config.optimizer.average_decay,
        positive=objective.POSITIVE,
        numbers=settings.numbers(config),
        next_pace=settings.next_pace(config),
        measures_gradient_share=settings.holds_gradient_share(config),
        mask=pk_batches.rows_that_count,
        noise_rate=(lambda numbers: numbers["memory.noise_rate"])
        if _filters_labels(config)
        else None,
        memory_start=config.memory.start,
        memory_of_average=config.memory.of_average,
        telemetry=objective.telemetry(config),
    )


def _filters_labels(config):
    """Whether labels that look wrong are left out."""
    field = "memory.noise_rate"
    return settings.is_on(field, config.memory.noise_rate) or field in settings.scheduled(config)


def schedule(config: ml_collections.ConfigDict) -> loop.Schedule:
    """How long a run is, and what happens how often."""
    return loop.Schedule(
        steps=config.train.steps,
        log_every=config.log.every,
        telemetry_every=config.log.telemetry_every,
        evaluate_every=config.evaluate.every,
    )
