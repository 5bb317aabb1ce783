"""The memory across batches, against a list of the batches that are kept."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from configs import digits
from experiments import check, objective
from triplet_jax import contrastive, errors, losses, memory

DIM = 3


def batches(seed, steps, rows, examples):
    """Embeddings, labels and places of several steps; an example keeps its label."""
    random = np.random.default_rng(seed)
    label_of = random.integers(0, 4, examples)
    for _ in range(steps):
        places = random.choice(examples, rows, replace=False)
        yield random.normal(size=(rows, DIM)).astype(np.float32), label_of[places], places


@given(seed=st.integers(0, 99), size=st.integers(6, 20), rows=st.integers(1, 6))
def test_the_ring_keeps_the_latest_and_hides_the_examples_of_a_batch(seed, size, rows):
    ring, kept = memory.empty(size, DIM), []
    for x, labels, places in batches(seed, 8, rows, 15):  # through several wrap-arounds
        counts = np.asarray(memory.useful(ring, jnp.asarray(places)))
        expected = [(p, y, tuple(e)) for e, y, p in kept if p not in places]
        found = zip(ring.places, ring.labels, ring.embeddings, counts, strict=True)
        found = [(int(p), int(y), tuple(np.asarray(e))) for p, y, e, use in found if use]
        assert sorted(found) == sorted(expected)
        ring = memory.remember(ring, *map(jnp.asarray, (x, labels, places)))
        kept = [*kept, *zip(x, labels, places, strict=True)][-size:]


def config(variant="xbm", **fields):
    made = digits.get_config(variant)
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


@pytest.mark.parametrize("name", ["triplet", "info_nce"])
def test_the_loss_is_that_of_an_explicit_loop_over_kept_batches(name):
    metric = "euclidean" if name == "triplet" else "cosine"
    made = config(memory__size=20, memory__weight=0.7, loss__name=name, loss__metric=metric)
    loss = objective.loss(made)
    run = jax.jit(
        lambda x, y, remembered: jax.value_and_grad(
            lambda x: loss(x, y, key=None, axis_name=None, remembered=remembered), has_aux=True
        )(x)
    )

    def of(x, y, **references):
        if name == "triplet":
            return losses.triplet_loss(x, y, margin=made.loss.margin, **references)[0]
        return contrastive.contrastive_loss(x, y, loss=name, **references)[0]

    ring, kept = memory.empty(20, DIM), []
    for x, labels, places in batches(0, 9, 8, 30):
        counts = memory.useful(ring, jnp.asarray(places))
        (found, stats), gradient = run(x, jnp.asarray(labels), (ring, counts))
        past = [(e, y) for e, y, p in kept if p not in places]

        def expected(x, labels=labels, past=past):
            value = of(x, labels)
            if not past:
                return value
            e, y = map(np.stack, zip(*past, strict=True))
            return value + 0.7 * of(x, labels, references=jnp.asarray(e), reference_labels=y)

        value, slope = jax.value_and_grad(expected)(jnp.asarray(x))
        np.testing.assert_allclose(found, value, rtol=1e-5)
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-5)
        assert np.isfinite(stats["memory/loss"])
        ring = memory.remember(ring, *map(jnp.asarray, (x, labels, places)))
        kept = [*kept, *zip(x, labels, places, strict=True)][-20:]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory__size": 100}, "memory.size=100 is smaller than a batch of 120"),
        ({"memory__miner": "hardest"}, "memory.miner='hardest'"),
        ({"memory__weight": -1.0}, "memory.weight=-1.0 must be"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config(**fields))


def test_a_memory_goes_with_no_proxies():
    with pytest.raises(errors.InputError, match="goes with no proxies"):
        check.check(config("proxy_nca", memory__size=1024))


def test_references_of_a_mask_count_for_nothing():
    random = np.random.default_rng(0)
    x, refs = (jnp.asarray(random.normal(size=(n, DIM)), jnp.float32) for n in (8, 12))
    y, ref_labels = np.arange(8) % 3, np.arange(12) % 4
    mask = random.random(12) < 0.5
    pairs = functools.partial(contrastive.contrastive_loss, loss="pairs", metric="euclidean")
    for loss in (losses.triplet_loss, pairs):
        masked, stats = loss(
            x, y, references=refs, reference_labels=ref_labels, reference_mask=jnp.asarray(mask)
        )
        kept, of_kept = loss(x, y, references=refs[mask], reference_labels=ref_labels[mask])
        np.testing.assert_allclose(masked, kept, rtol=1e-5)
        for name, number in of_kept.items():
            np.testing.assert_allclose(stats[name], number, rtol=1e-5)
