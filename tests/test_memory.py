"""The memory across batches, against a list of the batches that are kept."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from configs import digits
from experiments import build, check, objective
from triplet_jax import collectives, contrastive, errors, losses, memory

DIM = 3
STRENGTHS = ("shift", "rotate", "scale", "shear", "noise")


def batches(seed, steps, rows, examples):
    """Embeddings, labels and places of several steps; an example keeps its label."""
    random = np.random.default_rng(seed)
    label_of = random.integers(0, 4, examples)
    for _ in range(steps):
        places = random.choice(examples, rows, replace=False)
        yield random.normal(size=(rows, DIM)).astype(np.float32), label_of[places], places


@given(seed=st.integers(0, 99), size=st.sampled_from((6, 13, 20)), rows=st.sampled_from((1, 4, 6)))
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

    @jax.jit
    @jax.value_and_grad
    def expected(x, labels, past, past_labels, counts):
        beside = {"references": past, "reference_labels": past_labels, "reference_mask": counts}
        return of(x, labels) + 0.7 * of(x, labels, **beside)

    ring, kept = memory.empty(20, DIM), []
    for x, labels, places in batches(0, 9, 8, 30):
        counts = memory.useful(ring, jnp.asarray(places))
        (found, stats), gradient = run(x, jnp.asarray(labels), (ring, counts))
        # Filled up to one shape, which is compiled once.
        past = [(e, y, p not in places) for e, y, p in kept]
        past += [(np.zeros(DIM, np.float32), 0, False)] * (20 - len(past))
        past = [jnp.asarray(np.stack(part)) for part in zip(*past, strict=True)]
        value, slope = expected(jnp.asarray(x), jnp.asarray(labels), *past)
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


def info_nce_of(x, y, references, labels, own, temperature=0.1):
    """In float64, one pair at a time; no row is compared with its own reference."""
    x, references = (np.asarray(a, np.float64) for a in (x, references))
    x, references = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, references))
    s = np.exp(x @ references.T / temperature)
    terms = [
        -np.log(s[i, j] / (s[i, j] + s[i, labels != y[i]].sum()))
        for i in range(len(x))
        for j in range(len(references))
        if labels[j] == y[i] and j != own[i]
    ]
    return np.mean(terms)


@pytest.mark.parametrize("tile_size", [None, 3])
def test_no_row_is_compared_with_its_own_reference(tile_size):
    random = np.random.default_rng(0)
    x, refs = (jnp.asarray(random.normal(size=(n, DIM)), jnp.float32) for n in (8, 20))
    y, labels = np.arange(8) % 3, np.arange(20) % 4
    own = np.array([4, 13, 6, 0, 1, 18, 8, 5])  # of the row's class
    assert (labels[own] == y).all()
    run = functools.partial(
        contrastive.contrastive_loss,
        references=refs,
        reference_labels=labels,
        own_reference=jnp.asarray(own),
        tile_size=tile_size,
    )
    np.testing.assert_allclose(run(x, y)[0], info_nce_of(x, y, refs, labels, own), rtol=1e-5)
    # The triplets are those of each row with the others of the references.
    _, stats = losses.triplet_loss(
        x,
        y,
        miner="batch_all",
        references=refs,
        reference_labels=labels,
        own_reference=jnp.asarray(own),
    )
    count = [((labels == y[i]).sum() - 1) * (labels != y[i]).sum() for i in range(len(x))]
    assert stats["num_valid"] == sum(count)


def test_an_own_reference_that_is_hidden_takes_no_positive_away():
    random = np.random.default_rng(0)
    x, refs = (jnp.asarray(random.normal(size=(n, DIM)), jnp.float32) for n in (1, 30))
    labels = np.arange(30) % 6
    run = functools.partial(
        losses.triplet_loss, x, labels[:1], references=refs, reference_labels=labels
    )
    hidden, stats = run(
        own_reference=jnp.array([0]), reference_mask=jnp.arange(30) > 0, miner="batch_all"
    )
    alone, expected = run(own_reference=jnp.array([0]), miner="batch_all")
    assert stats["num_positive_pairs"] == expected["num_positive_pairs"] == 4
    assert float(hidden) == pytest.approx(float(alone), rel=1e-6)


def test_beside_the_average_are_its_views_of_the_batch_and_the_past():
    made = config("moco", memory__size=130, loss__knobs__temperature=0.2)
    loss = objective.loss(made)
    random = np.random.default_rng(0)
    ring, kept = memory.empty(130, DIM), []
    for _ in range(5):
        images = random.choice(40, 16, replace=False).repeat(2)  # two views of each
        x, views = (random.normal(size=(32, DIM)).astype(np.float32) for _ in range(2))
        counts = memory.useful(ring, jnp.asarray(images))
        value, _ = loss(
            jnp.asarray(x),
            jnp.asarray(images),
            key=None,
            axis_name=None,
            remembered=(ring, counts),
            by_average=jnp.asarray(views),
        )
        past = [(e, p) for e, p in kept if p not in images]
        references = np.stack([*views, *[e for e, _ in past]])
        labels = np.array([*images, *[p for _, p in past]])
        expected = info_nce_of(x, images, references, labels, np.arange(32), temperature=0.2)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        ring = memory.remember(ring, *map(jnp.asarray, (views, images, images)))
        kept = [*kept, *zip(views, images, strict=True)][-130:]
    assert len(past) > 50


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer__average_decay": 0.0}, "memory.of_average=True with memory.size=1024 and"),
        ({"memory__weight": 2.0}, "have no effect with memory.of_average"),
        ({"mining__second": "batch_hard"}, "have no effect with memory.of_average"),
        ({"memory__miner": "batch_hard"}, "have no effect with memory.of_average"),
        ({"batch__small_classes": "drop"}, "set it to 'redraw'"),
        ({"batch__pool": 0.5, "batch__order": "random"}, "batch.pool has no effect"),
        ({f"augment__{name}": 0.0 for name in STRENGTHS}, "augment changes nothing"),
    ],
)
def test_views_and_averages_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config("moco", **fields))


@pytest.mark.parametrize(
    ("fields", "dim"),
    [
        ({"model__projection": 8, "model__projection_dim": 5}, 5),
        ({"loss__nested_dims": (4, 64)}, 64),
    ],
)
def test_the_average_sees_what_the_loss_sees(fields, dim):
    made = config("moco", model__name="mlp", model__width=16, **fields)
    check.check(made)
    encoder = build.encoder(made, (8, 8, 1))
    state = build.initial_state(made, encoder, (8, 8, 1))
    step = jax.pmap(
        build.step(made, encoder, None),
        axis_name=collectives.DEVICES,
        in_axes=(None, 0, 0, 0),
        out_axes=(None, None),
        devices=jax.devices()[:1],
    )
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 8, 8, 1)).astype(np.uint8)
    places = np.repeat(np.arange(64), 2)[None]
    state, metrics = step(state, images, places, places)
    assert state.memory.embeddings.shape == (1024, dim)
    assert np.linalg.norm(state.memory.embeddings, axis=1)[:128] == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(metrics["loss"])
