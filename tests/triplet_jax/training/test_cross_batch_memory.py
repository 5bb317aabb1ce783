"""The memory across batches, against a list of the batches that are kept."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from configs import base, digits
from experiments.config import check, encoders, objective, stepping
from tests.support import calls, cases, oracles
from triplet_jax import contrastive, errors, losses
from triplet_jax.devices import collectives
from triplet_jax.training import cross_batch_memory

DIM = 3
STRENGTHS = ("shift", "rotate", "scale", "shear", "noise")


remember, useful = map(jax.jit, (cross_batch_memory.remember, cross_batch_memory.useful))


def batches(seed, steps, rows, examples):
    """Embeddings, labels and places of several steps; an example keeps its label."""
    random = np.random.default_rng(seed)
    label_of = random.integers(0, 4, examples)
    for _ in range(steps):
        places = random.choice(examples, rows, replace=False)
        yield random.normal(size=(rows, DIM)).astype(np.float32), label_of[places], places


@given(seed=st.integers(0, 99), size=st.sampled_from((6, 13, 20)), rows=st.sampled_from((1, 4, 6)))
def test_the_ring_keeps_the_latest_and_hides_the_examples_of_a_batch(seed, size, rows):
    ring, kept = cross_batch_memory.empty(size, DIM), []
    for x, labels, places in batches(seed, 8, rows, 15):  # through several wrap-arounds
        counts = np.asarray(useful(ring, places))
        expected = [(p, y, tuple(e)) for e, y, p in kept if p not in places]
        found = zip(ring.places, ring.labels, ring.embeddings, counts, strict=True)
        found = [(int(p), int(y), tuple(np.asarray(e))) for p, y, e, use in found if use]
        assert sorted(found) == sorted(expected)
        ring = remember(ring, x, labels, places)
        kept = [*kept, *zip(x, labels, places, strict=True)][-size:]


def test_the_ring_keeps_no_rows_that_do_not_count():
    ring, kept = cross_batch_memory.empty(7, DIM), []
    hidden = np.array([True, False, True, False])
    for x, labels, places in batches(0, 9, 4, 15):
        places = np.where(hidden, -1, places)
        ring = cross_batch_memory.remember(ring, *map(jnp.asarray, (x, labels, places)))
        kept = [*kept, *places[~hidden]][-7:]
    assert sorted(np.asarray(ring.places).tolist()) == sorted(kept)
    assert not cross_batch_memory.useful(ring, jnp.asarray(kept)).any()
    # Rows that do not count hide nobody.
    assert cross_batch_memory.useful(ring, jnp.full(4, -1)).all()


def config(variant="xbm", **fields):
    made = digits.get_config(variant)
    made.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    return made


@pytest.mark.parametrize(
    "name",
    cases.mostly_slow(["triplet", "info_nce", "pairs", "supervised_contrastive"], ["triplet"]),
)
def test_the_loss_is_that_of_an_explicit_loop_over_kept_batches(name):
    metric = "euclidean" if name in ("triplet", "pairs") else "cosine"
    made = config(memory__size=20, memory__weight=0.7, loss__name=name, loss__metric=metric)
    loss = objective.loss(made)
    run = jax.jit(
        lambda x, y, remembered: jax.value_and_grad(
            lambda x: loss(x, y, key=None, axis_name=None, remembered=remembered), has_aux=True
        )(x)
    )

    def by_definition(x, labels, refs=None, ref_labels=None):
        """A function of the batch, in float64; its triplets are those of `x`."""
        if name == "triplet":
            found = oracles.mine(x, labels, "semi_hard", refs=refs, ref_labels=ref_labels)
            margin = made.loss.margin
            return lambda x: oracles.loss_of(x, found, margin=margin, refs=refs)[0]["active"]
        return lambda x: oracles.contrastive(x, labels, name, metric, refs, ref_labels)

    ring, kept = cross_batch_memory.empty(20, DIM), []
    for x, labels, places in batches(0, 9, 8, 30):  # through three wrap-arounds
        counts = cross_batch_memory.useful(ring, jnp.asarray(places))
        (found, stats), gradient = run(x, jnp.asarray(labels), (ring, counts))
        terms = [(1.0, by_definition(x, labels))]
        beside = [(e, y) for e, y, p in kept if p not in places]
        if beside:
            refs, ref_labels = (np.array(part) for part in zip(*beside, strict=True))
            terms.append((0.7, by_definition(x, labels, refs.astype(np.float64), ref_labels)))

        def expected(x, terms=terms):
            return {"loss": sum(weight * term(x) for weight, term in terms)}

        np.testing.assert_allclose(found, expected(x.astype(np.float64))["loss"], rtol=1e-4)
        slope = oracles.slope(expected, x)["loss"]
        np.testing.assert_allclose(gradient, slope, rtol=5e-3, atol=1e-4)
        assert np.isfinite(stats["memory/loss"])
        ring = cross_batch_memory.remember(ring, *map(jnp.asarray, (x, labels, places)))
        kept = [*kept, *zip(x, labels, places, strict=True)][-20:]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"memory__size": 100}, "memory.size=100 is smaller than a batch of 120"),
        ({"memory__miner": "hardest"}, "memory.miner='hardest'"),
        ({"memory__weight": -1.0}, "memory.weight=-1.0 must be"),
        ({"memory__start": 5000}, "memory.start=5000 is not reached within train.steps"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config(**fields))


def test_a_memory_has_its_own_miner():
    made = config(memory__size=20, memory__miner="batch_hard", mining__miner="batch_all")
    [(x, y, _), (past, labels, _)] = batches(0, 2, 12, 30)
    ring = cross_batch_memory.remember(
        cross_batch_memory.empty(20, DIM), *map(jnp.asarray, (past, labels, labels))
    )
    counts = ring.places >= 0
    context = {"key": None, "axis_name": None, "remembered": (ring, counts)}
    _, stats = calls.compiled(objective.loss(made), jnp.asarray(x), y, **context)
    found = [len(oracles.mine(x, y, "batch_all"))]
    found += [len(oracles.mine(x, y, "batch_hard", refs=past, ref_labels=labels))]
    assert [stats["num_valid"], stats["memory/num_valid"]] == found


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
        beside = losses.References(refs, ref_labels, jnp.asarray(mask))
        masked, stats = calls.compiled(loss, x, y, references=beside)
        beside = {"references": refs[mask], "reference_labels": ref_labels[mask]}
        kept, of_kept = calls.compiled(loss, x, y, **beside)
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
    references = losses.References(refs, labels, own=jnp.asarray(own))
    run = functools.partial(
        contrastive.contrastive_loss, references=references, tile_size=tile_size
    )
    expected = info_nce_of(x, y, refs, labels, own)
    np.testing.assert_allclose(calls.compiled(run, x, y)[0], expected, rtol=1e-5)
    # The triplets are those of each row with the others of the references.
    of_all = {"miner": "batch_all", "references": references}
    _, stats = calls.compiled(losses.triplet_loss, x, y, **of_all)
    count = [((labels == y[i]).sum() - 1) * (labels != y[i]).sum() for i in range(len(x))]
    assert stats["num_valid"] == sum(count)


def test_an_own_reference_that_is_hidden_takes_no_positive_away():
    random = np.random.default_rng(0)
    x, refs = (jnp.asarray(random.normal(size=(n, DIM)), jnp.float32) for n in (1, 30))
    labels = np.arange(30) % 6

    def run(**settings):
        references = losses.References(refs, labels, own=jnp.array([0]), **settings)
        of_all = {"miner": "batch_all", "references": references}
        return calls.compiled(losses.triplet_loss, x, labels[:1], **of_all)

    hidden, stats = run(mask=jnp.arange(30) > 0)
    alone, expected = run()
    assert stats["num_positive_pairs"] == expected["num_positive_pairs"] == 4
    assert float(hidden) == pytest.approx(float(alone), rel=1e-6)


def step_of(made):
    """The step of one device on small images, and the state before the first."""
    check.check(made)
    encoder = encoders.encoder(made, (8, 8, 1))
    step = jax.pmap(
        stepping.step(made, encoder, None),
        axis_name=collectives.DEVICES,
        in_axes=(None, 0, 0, 0),
        out_axes=(None, None),
        devices=jax.devices()[:1],
    )
    return step, stepping.initial_state(made, encoder, (8, 8, 1))


@pytest.mark.slow
def test_rows_that_a_schedule_leaves_out_are_not_remembered():
    small = {"model__name": "mlp", "model__width": 16, "batch__classes": 10, "batch__per_class": 4}
    made = config(**small, memory__size=64, memory__start=0)
    made.schedules.images = base.schedule("batch.per_class", start=2.0, end=2.0)
    step, state = step_of(made)
    images = np.random.default_rng(0).integers(0, 256, (1, 40, 8, 8, 1)).astype(np.uint8)
    places = np.arange(40)[None]
    state, _ = step(state, images, places // 4, places)
    shown = np.flatnonzero(np.arange(40) % 4 < 2)
    assert state.memory.next == len(shown)
    np.testing.assert_array_equal(state.memory.places[: len(shown)], shown)


def test_beside_the_average_are_its_views_of_the_batch_and_the_past():
    made = config("moco", memory__size=130, loss__knobs__temperature=0.2)
    loss = jax.jit(functools.partial(objective.loss(made), key=None, axis_name=None))
    random = np.random.default_rng(0)
    ring, kept = cross_batch_memory.empty(130, DIM), []
    for _ in range(5):
        images = random.choice(40, 16, replace=False).repeat(2)  # two views of each
        x, views = (random.normal(size=(32, DIM)).astype(np.float32) for _ in range(2))
        counts = useful(ring, images)
        value, _ = loss(x, images, remembered=(ring, counts), by_average=views)
        past = [(e, p) for e, p in kept if p not in images]
        references = np.stack([*views, *[e for e, _ in past]])
        labels = np.array([*images, *[p for _, p in past]])
        expected = info_nce_of(x, images, references, labels, np.arange(32), temperature=0.2)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        ring = remember(ring, views, images, images)
        kept = [*kept, *zip(views, images, strict=True)][-130:]
    assert len(past) > 50


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optimizer__average_decay": 0.0}, "memory.of_average=True with memory.size=1024 and"),
        ({"memory__weight": 2.0}, "memory.weight=2.0 has no effect with memory.of_average=True"),
        ({"mining__second": "batch_hard"}, "mining.second='batch_hard' has no effect with"),
        ({"memory__miner": "batch_hard"}, "memory.miner='batch_hard' has no effect with"),
        ({"batch__small_classes": "drop"}, "set it to 'redraw'"),
        ({"batch__pool": 0.5, "batch__order": "random"}, "batch.pool=0.5 has no effect"),
        ({f"augment__{name}": 0.0 for name in STRENGTHS}, "augment changes nothing"),
    ],
)
def test_views_and_averages_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(errors.InputError, match=words):
        check.check(config("moco", **fields))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "dim"),
    [
        ({"model__projection": 8, "model__projection_dim": 5}, 5),
        ({"loss__nested_dims": (4, 64)}, 64),
    ],
)
def test_the_average_sees_what_the_loss_sees(fields, dim):
    step, state = step_of(config("moco", model__name="mlp", model__width=16, **fields))
    images = np.random.default_rng(0).integers(0, 256, (1, 128, 8, 8, 1)).astype(np.uint8)
    places = np.repeat(np.arange(64), 2)[None]
    state, metrics = step(state, images, places, places)
    assert state.memory.embeddings.shape == (1024, dim)
    assert np.linalg.norm(state.memory.embeddings, axis=1)[:128] == pytest.approx(1.0, abs=1e-5)
    assert np.isfinite(metrics["loss"])
