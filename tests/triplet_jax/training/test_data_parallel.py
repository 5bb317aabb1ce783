import types

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np

from triplet_jax.devices import allocator, collectives
from triplet_jax.training import data_parallel


def step(state, inputs, labels, places):
    """Adds up the inputs of all devices, and shows which rows were where."""
    total = collectives.total(inputs.sum(), collectives.DEVICES)
    rows = collectives.gather((labels, places), collectives.DEVICES)
    return state + total, {"rows": rows}


def draw(index, inputs, state):
    """Of 64 examples the 16 from the one on that the state says."""
    return index[(state.astype(jnp.int32) + jnp.arange(16)) % 64]


def test_a_batch_that_is_drawn_on_the_device_is_the_one_that_is_streamed():
    devices = jax.local_device_count()
    inputs, labels = np.arange(64.0, dtype=np.float32), np.arange(64) % 5
    index = np.random.default_rng(0).permutation(64)
    resident = data_parallel.resident(data_parallel.drawing(step, draw, devices=devices))
    streamed = data_parallel.streamed(step)
    held = data_parallel.replicate((jnp.asarray(index), jnp.asarray(inputs), jnp.asarray(labels)))
    # Two copies, since a step donates its state.
    ours, theirs = (data_parallel.replicate(jnp.float32(3)) for _ in range(2))
    for _ in range(3):
        picked = index[(int(ours) + np.arange(16)) % 64]
        ours, found = resident(ours, held, collectives.own_devices())
        shard = [x.reshape(devices, -1) for x in (inputs[picked], labels[picked], picked)]
        theirs, expected = streamed(theirs, *shard)
        assert float(ours) == float(theirs)
        for rows in (found["rows"], expected["rows"]):
            np.testing.assert_array_equal(rows, (labels[picked], picked))


def test_a_step_is_compiled_once_and_what_that_took_is_given_back_before_it_runs(monkeypatch):
    done = []
    monkeypatch.setattr(allocator, "trim", lambda: done.append("trimmed"))

    def listener(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            done.append("compiled")

    def noting(state, inputs, labels, places):
        jax.debug.callback(lambda: done.append("ran"))
        return step(state, inputs, labels, places)

    devices = jax.local_device_count()
    run = data_parallel.streamed(noting)
    state = data_parallel.replicate(jnp.float32(0))
    batch = [np.zeros((devices, 2), dtype) for dtype in (np.float32, np.int32, np.int32)]
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        for _ in range(2):
            state, metrics = run(state, *batch)
            jax.block_until_ready(metrics)
        jax.effects_barrier()
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert done == ["compiled", "trimmed"] + 2 * devices * ["ran"]


def test_replicated_arrays_are_on_every_device():
    array = data_parallel.replicate({"a": jnp.arange(3)})["a"]
    assert len(array.sharding.device_set) == jax.local_device_count()
    np.testing.assert_array_equal(array, [0, 1, 2])


def test_each_step_is_taken_by_the_function_of_its_phase():
    def noting(name):
        return lambda state, add: (types.SimpleNamespace(step=state.step + 1), name + add)

    state = types.SimpleNamespace(step=jnp.int32(3))
    step = data_parallel.in_phases({0: noting("early"), 5: noting("late"), 7: noting("last")})
    said = []
    for _ in range(5):
        state, name = step(state, "!")
        said.append(name)
    assert said == ["early!", "early!", "late!", "late!", "last!"]
    alone = noting("alone")
    assert data_parallel.in_phases({0: alone}) is alone
