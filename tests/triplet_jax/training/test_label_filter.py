"""Rows whose labels look wrong, against plain loops over classes and batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits
from experiments.config import check, encoders, stepping
from triplet_jax import errors
from triplet_jax.devices import collectives
from triplet_jax.training import cross_batch_memory, label_filter

DIM = 3
chances, kept = jax.jit(label_filter.chances), jax.jit(label_filter.kept)


def filled(x, labels, size):
    """A memory of these rows."""
    places = np.arange(len(labels))
    arrays = (jnp.asarray(a) for a in (np.float32(x), labels, places))
    return cross_batch_memory.remember(cross_batch_memory.empty(size, DIM), *arrays)


def chance_by_definition(v, label, x, labels):
    """In float64; infinite for a class that is not there."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    centres = {c: x[labels == c].mean(axis=0) for c in set(labels.tolist())}
    weights = {c: np.exp(v @ w / np.linalg.norm(v)) for c, w in centres.items()}
    return weights[label] / sum(weights.values()) if label in weights else np.inf


@pytest.mark.parametrize("seed", range(4))
def test_chances_are_those_of_the_definition(seed):
    random = np.random.default_rng(seed)
    past, of_past = random.normal(size=(15, DIM)), random.choice([-4, 0, 7, 2**31 - 2], 15)
    x, labels = random.normal(size=(9, DIM)), random.choice([-4, 7, 9, 2**31 - 2], 9)
    ring = filled(past, of_past, 20)
    used = np.asarray(ring.places >= 0) & (random.random(20) < 0.8)
    found = chances(jnp.asarray(x, jnp.float32), labels, ring, used)
    entries = used[:15]
    expected = [
        chance_by_definition(v, y, past[entries], of_past[entries])
        for v, y in zip(x, labels.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_is_known_beside_an_empty_memory():
    ring = cross_batch_memory.empty(8, DIM)
    found = chances(jnp.ones((4, DIM)), np.zeros(4, int), ring, ring.places >= 0)
    assert np.isinf(found).all()
    rows, after = kept(found, 0.5, label_filter.first_thresholds(3))
    assert np.asarray(rows).all()
    assert not np.asarray(after.latest).any()


def kept_by_definition(of_batch, rate, window, latest):
    """Which rows of a batch are kept, and the latest thresholds after it, the newest last."""
    known = sorted(c for c in of_batch if np.isfinite(c))
    out = int(rate * len(known) + 1e-9)
    if not out:
        return [True] * len(of_batch), latest
    latest = [*latest, known[out - 1]][-window:]
    if not any(c > np.mean(latest) for c in known):
        latest = latest[-1:]
    return [not np.isfinite(c) or c > np.mean(latest) for c in of_batch], latest


@pytest.mark.parametrize("window", [1, 4])
def test_thresholds_are_averaged_over_the_latest_batches(window):
    random = np.random.default_rng(0)
    thresholds, latest = label_filter.first_thresholds(window), []
    anew = 0
    for batch in range(30):
        # The level falls now and then, so that whole batches are below the mean.
        of_batch = np.float32(random.uniform(0.1, 0.3, 10) * random.choice([1.0, 0.1]))
        of_batch[random.random(10) < 0.2] = np.inf
        rate = (0.3, 0.0, 0.4)[batch % 3]
        rows, thresholds = kept(of_batch, rate, thresholds)
        before = len(latest)
        expected, latest = kept_by_definition(of_batch, rate, window, latest)
        anew += len(latest) < before
        np.testing.assert_array_equal(rows, expected)
        found = np.asarray(thresholds.latest)
        np.testing.assert_allclose(found[found > 0], latest[::-1], rtol=1e-6)
    assert (anew > 0) == (window > 1)


def test_a_share_is_exact():
    of_batch = np.linspace(0.1, 0.9, 10).astype(np.float32)
    for tenths in range(10):
        rows, _ = kept(of_batch, tenths / 10, label_filter.first_thresholds(1))
        assert np.sum(np.asarray(rows)) == 10 - tenths


def config(**fields):
    small = {"model__name": "mlp", "model__width": 16, "batch__classes": 4, "batch__per_class": 4}
    small |= {"memory__size": 64, "memory__start": 0, "memory__noise_window": 1}
    small |= {"log__telemetry_every": 0}
    made = digits.get_config("prism")
    fields = small | fields
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


def run(made, devices, steps=4):
    """The state and the metrics after each of some steps on random images."""
    check.check(made)
    encoder = encoders.encoder(made, (8, 8, 1))
    traces = []

    def step(*arrays):
        traces.append(devices)
        return stepping.step(made, encoder, None)(*arrays)

    lifted = jax.pmap(
        step,
        axis_name=collectives.DEVICES,
        in_axes=(None, 0, 0, 0),
        out_axes=(None, None),
        devices=jax.devices()[:devices],
    )
    state, found = stepping.initial_state(made, encoder, (8, 8, 1)), []
    random = np.random.default_rng(0)
    for at in range(steps):
        images = random.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
        arrays = (images, np.arange(16) // 4, 16 * at + np.arange(16))
        parts = [x.reshape(devices, -1, *x.shape[1:]) for x in arrays]
        state, metrics = jax.device_get(lifted(state, *parts))
        found.append((state, metrics))
    assert len(traces) == 1
    return found


@functools.cache
def of_a_quarter(devices):
    return run(config(memory__noise_rate=0.25), devices)


def test_what_is_left_out_is_not_remembered_and_has_no_part_in_the_loss():
    found = of_a_quarter(1)
    written = np.diff([0] + [int(state.memory.next) for state, _ in found])
    np.testing.assert_array_equal(written, [16, 12, 12, 12])
    for count, (_, metrics) in zip(written, found, strict=True):
        assert float(metrics["kept_fraction"]) == count / 16
        # Of 12 rows in 4 classes there are at most as many pairs as with 4, 4, 4 and 0 rows.
        assert int(metrics["num_positive_pairs"]) <= 3 * count


@pytest.mark.slow
def test_the_filter_is_the_same_over_devices():
    both = zip(of_a_quarter(1), of_a_quarter(8), strict=True)
    for (state, metrics), (other, of_other) in both:
        np.testing.assert_array_equal(other.memory.places, state.memory.places)
        np.testing.assert_allclose(other.thresholds.latest, state.thresholds.latest, rtol=1e-4)
        np.testing.assert_allclose(of_other["loss"], metrics["loss"], rtol=1e-4)


@pytest.mark.slow
def test_the_share_may_move():
    made = config(memory__noise_rate=0.0)
    rising = {"start": 0.0, "end": 0.5, "kind": "step", "a": 0.002}
    made.schedules.noise = base.schedule("memory.noise_rate", **rising)
    found = run(made, 1)
    written = np.diff([0] + [int(state.memory.next) for state, _ in found])
    np.testing.assert_array_equal(written, [16, 16, 8, 8])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory__size": 0}, "memory.noise_rate=0.4 has no effect with memory.size=0"),
        ({"memory__noise_rate": 1.0}, "memory.noise_rate=1.0 must be .* less than 1"),
        ({"memory__noise_window": 0}, "memory.noise_window=0 must be"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config(**fields))
