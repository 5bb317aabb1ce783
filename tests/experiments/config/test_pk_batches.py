"""From config fields to batches."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from experiments.config import check, objective, pk_batches, settings
from tests.support.configs import scheduled
from triplet_jax import errors
from triplet_jax.data import sampling


def test_a_schedule_is_the_same_in_a_stream():
    made = scheduled("batch.pool", start=0.2, end=1.0, order="random")
    made.batch.order = "random"
    check.check(made)
    index = sampling.class_index(np.repeat(np.arange(12), 40))
    on_host = pk_batches.draw_on_host(made, index)
    draw = pk_batches.draw(made, None)

    @jax.jit
    def on_device(index, step):
        return draw(index, None, types.SimpleNamespace(step=step, pace={}))

    held = jax.tree.map(jnp.asarray, index)
    for step in (0, 1, 500, 999):
        np.testing.assert_array_equal(on_host(step), on_device(held, jnp.int32(step)))


def test_classes_and_images_of_a_batch_may_move():
    """What counts is the batch that a smaller config would have drawn."""
    made = scheduled("batch.per_class", start=2, end=6, a=0.5, miner="batch_all")
    made.batch.classes, made.batch.per_class = 4, 6
    made.schedules.two = base.schedule("batch.classes", start=3, end=4, kind="step", a=0.5)
    check.check(made)
    moved, loss = settings.numbers(made), objective.loss(made)
    x = jax.random.normal(jax.random.key(0), (24, 8))
    labels = jnp.arange(24) // 6

    @jax.jit
    def counts(step):
        numbers = moved(step, {})
        mask = pk_batches.rows_that_count(numbers, jnp.arange(24))
        return loss(x, labels, key=None, axis_name=None, numbers=numbers, mask=mask)[1]

    for step, classes, per_class in ((0, 3, 2), (250, 3, 4), (600, 4, 6)):
        stats = counts(jnp.int32(step))
        assert stats["num_positive_pairs"] == classes * per_class * (per_class - 1)
        assert stats["num_negative_pairs"] == classes * per_class * (classes - 1) * per_class
    made.schedules.two.end = 5
    with pytest.raises(errors.InputError, match="more than batch.classes=4"):
        check.check(made)
