"""From the fields of a config to the batches of a run."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Int

from experiments.config import learnable_batches, settings
from triplet_jax import data
from triplet_jax.data import sampling
from triplet_jax.models import encoder_parts
from triplet_jax.training.numbers import Numbers


def class_index(config: ml_collections.ConfigDict, examples: data.Dataset) -> sampling.ClassIndex:
    """The positions of each class's examples, in the order in which a growing pool adds them."""
    rank = {
        "easy": examples.difficulty,
        "hard": None if examples.difficulty is None else -examples.difficulty,
        "random": np.random.default_rng(config.seed).random(len(examples)),
    }[config.batch.order]
    index = sampling.class_index(examples.labels, rank=rank, groups=examples.groups)
    if config.batch.choose_from:
        index = index._replace(reference=examples.reference)
    if not mines_offline(config):
        return index
    return index.beside(np.full((len(examples), config.offline.neighbours), -1, np.int32))


def mines_offline(config: ml_collections.ConfigDict) -> bool:
    """Whether batches hold near examples of other classes, from a table."""
    return bool(config.offline.every or config.offline.table)


def rows_that_count(numbers: Numbers, rows: Int[Array, "batch"]) -> Bool[Array, "batch"] | None:
    """Which rows of a batch count while its numbers of classes or images move; None for all.

    The batch keeps the shape that the config gives it: rows of a class stand together.

    Args:
      numbers: of the step.
      rows: their places in the global batch.
    """
    if not {"batch.classes", "batch.per_class"} & set(numbers.moved):
        return None
    per_class = numbers.constant["batch.per_class"]
    in_classes = rows // per_class < numbers["batch.classes"]
    return in_classes & (rows % per_class < numbers["batch.per_class"])


def draw(config: ml_collections.ConfigDict, encoder: encoder_parts.Applied) -> Callable:
    """The batch of a step, `(index, inputs, state) -> positions`, inside a compiled step."""
    numbers, near, offered = settings.numbers(config), _near(config), config.batch.choose_from
    choose = learnable_batches.choose(config, encoder) if offered else None

    def of_state(index, inputs, state):
        now = numbers(state.step, state.pace)
        classes = offered or now.constant["batch.classes"]
        drawn = _pk_batch(jnp, index, state.step, now, near, classes)
        return choose(drawn, index, inputs, state, now) if choose else drawn

    return of_state


def draw_on_host(config: ml_collections.ConfigDict, index: sampling.ClassIndex) -> Callable:
    """The batch of a step, `step -> positions`, for the processes that load a stream."""
    moved = settings.of_all_steps(config, "batch")
    return functools.partial(_draw_at, settings.constant(config), moved, index, _near(config))


def _draw_at(constant, moved, index, near, step):
    now = {field: values[step] for field, values in moved.items()}
    classes = constant["batch.classes"]
    return _pk_batch(np, index, step, dataclasses.replace(constant, moved=now), near, classes)


def _near(config):
    """How many near examples are drawn for each example of a batch."""
    return config.offline.near if mines_offline(config) else 0


def _pk_batch(xp, index, step, numbers, near, classes):
    return sampling.pk_batch(
        xp,
        index,
        numbers["seed"],
        step,
        classes=classes,
        per_class=numbers.constant["batch.per_class"],
        pool=numbers["batch.pool"],
        same_group=numbers["batch.same_group"],
        near=near,
    )
