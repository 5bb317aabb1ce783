"""A backbone that joins later: before that it is frozen, after that nothing is special."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from triplet_jax import losses, models
from triplet_jax.training import data_parallel, train_state, train_step

START = 2


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_before_its_start_a_backbone_is_frozen(devices, key):
    if jax.local_device_count() < devices:
        pytest.skip("needs eight simulated devices")
    axis = "devices" if devices > 1 else None
    encoder = models.encoder("mlp", dim=4, width=8, depth=1, axis_name=axis)
    optimizer = optax.sgd(0.1)
    state = train_state.init_state(encoder, optimizer, jnp.ones((1, 5)), key=key, averaged=False)

    def loss(embeddings, labels, *, key, axis_name):
        return losses.triplet_loss(embeddings, labels, miner="batch_all", axis_name=axis_name)

    recipe = train_step.Recipe(
        encoder=encoder,
        optimizer=optimizer,
        loss=loss,
        learning_rate=optax.constant_schedule(0.1),
        key=key,
        axis_name=axis,
        backbone_start=START,
    )

    def one(state, inputs, labels, recipe=recipe):
        places = jnp.zeros(len(labels), jnp.int32)
        return train_step.train_step(state, inputs, labels, places, recipe=recipe)[0]

    inputs = jax.random.normal(key, (16, 5))
    labels = jnp.arange(16) // 2
    if axis:
        inputs, labels = inputs.reshape(8, 2, 5), labels.reshape(8, 2)
        lift = functools.partial(jax.pmap, axis_name=axis, in_axes=(None, 0, 0), out_axes=None)
    else:
        lift = jax.jit
    take = lift(one)
    of_phases = data_parallel.in_phases(
        {
            start: lift(functools.partial(one, recipe=phase))
            for start, phase in train_step.phases(recipe).items()
        }
    )

    def part(state):
        return jax.tree.leaves((state.params["backbone"], state.batch_stats))

    for step in range(START + 1):
        after = take(state, inputs, labels)
        for a, b in zip(
            *map(jax.tree.leaves, (after, of_phases(state, inputs, labels))), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        same = [np.array_equal(a, b) for a, b in zip(part(state), part(after), strict=True)]
        assert all(same) if step < START else not any(same)
        assert not np.array_equal(
            state.params["Dense_0"]["kernel"], after.params["Dense_0"]["kernel"]
        )
        state = after
