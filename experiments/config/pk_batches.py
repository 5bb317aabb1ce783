"""From the fields of a config to the batches of a run."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.config import settings
from triplet_jax import data
from triplet_jax.data import sampling


def class_index(config: ml_collections.ConfigDict, examples: data.Dataset) -> sampling.ClassIndex:
    """Where the examples of each class are, in the order in which the pool takes them in."""
    rank = {
        "easy": examples.difficulty,
        "hard": None if examples.difficulty is None else -examples.difficulty,
        "random": np.random.default_rng(config.seed).random(len(examples)),
    }[config.batch.order]
    index = sampling.class_index(examples.labels, rank=rank, groups=examples.groups)
    if not mines_offline(config):
        return index
    return index.beside(np.full((len(examples), config.offline.neighbours), -1, np.int32))


def mines_offline(config: ml_collections.ConfigDict) -> bool:
    """Whether batches are drawn from a table of near examples."""
    return bool(config.offline.every or config.offline.table)


def draw(config: ml_collections.ConfigDict) -> Callable:
    """The batch of a step, `(index, state) -> positions`, inside a compiled step."""
    moved = settings.moving(config)

    def of_state(index, state):
        numbers = moved(state.step, state.pace) if moved else {}
        return _pk_batch(config, jnp, index, state.step, numbers)

    return of_state


def draw_on_host(config: ml_collections.ConfigDict, index: sampling.ClassIndex) -> Callable:
    """The same as a function of the step alone, for the processes that load a stream."""
    moved = settings.moving(config)
    numbers = {}
    if moved and any(field.startswith("batch.") for field in settings.scheduled(config)):
        steps = jnp.arange(config.train.steps)
        pace = settings.first_pace(config)  # of other fields, which stay out
        every = jax.jit(jax.vmap(lambda step: moved(step, pace)))(steps)
        numbers = {f: np.asarray(x) for f, x in every.items() if f.startswith("batch.")}
    return functools.partial(_draw_at, ml_collections.FrozenConfigDict(config), index, numbers)


def _draw_at(config, index, numbers, step):
    numbers = {field: values[step] for field, values in numbers.items()}
    return _pk_batch(config, np, index, step, numbers)


def _pk_batch(config, xp, index, step, numbers):
    c = config.batch
    return sampling.pk_batch(
        xp,
        index,
        config.seed,
        step,
        classes=c.classes,
        per_class=c.per_class,
        pool=numbers.get("batch.pool", c.pool),
        same_group=numbers.get("batch.same_group", c.same_group),
        near=config.offline.near if mines_offline(config) else 0,
    )
