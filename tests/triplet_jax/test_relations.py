"""Positives that are given by several labels, or by pairs."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import contrastive, errors, losses, mining, relations
from triplet_jax.devices import collectives

N, DIM = 12, 3
X = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
LABELS = np.array([0, 1, 0, 2, 1, 0, 3, 2, 2, 1, 4, 0])
OF_LABELS = relations.shared_labels(np.eye(5, dtype=int)[LABELS])


def several(seed, n=N, labels=4, share=0.35):
    return np.random.default_rng(seed).random((n, labels)) < share


def value_and_gradient(loss, x=X):
    (value, stats), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(x))
    return value, stats, gradient


def assert_alike(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6), a, b)


def quick(names, some):
    """All names, of which only some are tested by default."""
    return [name if name in some else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("miner", quick(sorted(mining.MINERS), ("semi_hard", "distance_weighted")))
def test_one_label_a_row_is_as_labels_are(miner):
    key = jax.random.key(3)

    def loss(x, labels):
        return losses.triplet_loss(x, labels, miner=miner, margin=0.5, key=key)

    # A draw depends on the order of the candidates, which labels sort: so they are sorted here.
    order = np.argsort(LABELS)
    x, labels = X[order], LABELS[order]
    related = relations.shared_labels(np.eye(5)[labels])
    assert_alike(
        value_and_gradient(lambda x: loss(x, related), x),
        value_and_gradient(lambda x: loss(x, labels), x),
    )


@pytest.mark.parametrize("name", quick(sorted(contrastive.LOSSES), ("info_nce", "proxy_anchor")))
def test_a_contrastive_loss_of_one_label_a_row_is_as_of_labels(name):
    def loss(labels):
        metric = "dot" if name == "n_pairs" else "cosine"
        if name == "proxy_anchor":
            with_labels = labels is LABELS
            references = losses.References(
                X[:5] + 0.1, np.arange(5) if with_labels else None, shared=True
            )
            among = labels
            if not with_labels:
                among = relations.shared_labels(np.eye(5)[LABELS], np.eye(5))
            given = {"references": references}
        else:
            among, given = labels, {}
        return value_and_gradient(
            lambda x: contrastive.contrastive_loss(x, among, loss=name, metric=metric, **given)
        )

    assert_alike(loss(OF_LABELS), loss(LABELS))


def brute_force(x, positive, negative, margin):
    """The mean over active triplets of the hinge, of all triplets, in float64."""
    x = x.astype(np.float64)
    values = []
    for a in range(len(x)):
        for p in np.flatnonzero(positive[a]):
            for n in np.flatnonzero(negative[a]):
                if a not in (p, n):
                    d_ap, d_an = (np.linalg.norm(x[a] - x[c]) for c in (p, n))
                    values.append(max(0.0, d_ap - d_an + margin))
    active = [value for value in values if value > 0]
    return np.mean(active) if active else 0.0, len(values)


@jax.jit
def of_all_triplets(x, has):
    return losses.triplet_loss(x, relations.shared_labels(has), miner="batch_all", margin=0.3)


@hypothesis.given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_several_labels_agree_with_the_definition(seed, share):
    has = several(seed, share=share)
    x = np.random.default_rng(seed).normal(size=(N, DIM)).astype(np.float32)
    positive = np.array([[bool((a & b).any()) for b in has] for a in has])
    np.testing.assert_array_equal(relations.shared_labels(has).positive, positive)
    loss, stats = of_all_triplets(x, has)
    expected, triplets = brute_force(x, positive, ~positive, 0.3)
    assert float(stats["num_valid"]) == triplets
    np.testing.assert_allclose(loss, expected, rtol=1e-4, atol=1e-6)


def test_hardest_triplets_of_several_labels_are_the_extremes():
    has = several(5)
    related = np.asarray(relations.shared_labels(has).positive) & ~np.eye(N, dtype=bool)
    distances = np.linalg.norm(X[:, None] - X, axis=2)
    values = []
    for a in range(N):
        others = ~related[a] & (np.arange(N) != a)
        if related[a].any() and others.any():
            values.append(max(0, distances[a][related[a]].max() - distances[a][others].min() + 0.2))
    values = [value for value in values if value > 0]
    loss, _ = losses.triplet_loss(X, relations.shared_labels(has), miner="batch_hard")
    np.testing.assert_allclose(loss, np.mean(values), rtol=1e-5)


@pytest.mark.slow
def test_pairs_that_nobody_judged_are_left_out():
    related = relations.pairs([[0, 1], [2, 3]], N, negative=[[0, 4], [1, 5], [2, 0]])
    loss, stats = losses.triplet_loss(X, related, miner="batch_all", margin=0.7)
    expected, triplets = brute_force(X, np.asarray(related.positive), related.negative, 0.7)
    assert float(stats["num_valid"]) == triplets == 4
    assert float(stats["num_negative_pairs"]) == 6
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("miner", ["semi_hard", pytest.param("batch_all", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_tiles_masks_and_devices_change_nothing(miner):
    n = 48
    has, mask = several(7, n), np.random.default_rng(1).random(n) < 0.7
    x = np.random.default_rng(2).normal(size=(n, DIM)).astype(np.float32)

    def whole(x, tile_size=None):
        related = relations.shared_labels(has)
        return losses.triplet_loss(x, related, miner=miner, mask=mask, tile_size=tile_size)

    def part(x, has, mask):
        related = relations.shared_labels(has, axis_name="devices")
        loss = functools.partial(losses.triplet_loss, miner=miner, axis_name="devices")
        (value, stats), gradient = jax.value_and_grad(
            lambda x: loss(x, related, mask=mask), has_aux=True
        )(x)
        return value, stats, jax.lax.psum(jnp.zeros(()), "devices") + gradient

    expected = value_and_gradient(whole, x)
    assert_alike(value_and_gradient(functools.partial(whole, tile_size=7), x), expected)
    kept = np.flatnonzero(mask)
    among = value_and_gradient(
        lambda x: losses.triplet_loss(x, relations.shared_labels(has[kept]), miner=miner), x[kept]
    )
    assert_alike(among[:2], expected[:2])
    devices = len(collectives.own_devices())
    cut = [a.reshape(devices, n // devices, *a.shape[1:]) for a in (x, has, mask)]
    value, stats, _ = jax.pmap(part, axis_name="devices")(*cut)
    assert_alike((value[0], jax.tree.map(lambda a: a[0], stats)), expected[:2])


@pytest.mark.slow
def test_derivatives_of_any_order_are_those_of_labels():
    def loss(x, labels):
        return losses.triplet_loss(x, labels, miner="batch_all", derivatives="all")[0]

    x, hessian = X[:6], jax.jit(jax.hessian(loss))
    related = relations.shared_labels(np.eye(5)[LABELS[:6]])
    assert_alike(hessian(x, related), hessian(x, LABELS[:6]))


def test_a_relation_goes_through_jit_and_among_references():
    memory = np.random.default_rng(4).normal(size=(5, DIM)).astype(np.float32)
    has, other = several(8), several(9, 5)
    related = relations.shared_labels(has, other)

    @jax.jit
    def loss(x, memory, related):
        return losses.triplet_loss(x, related, miner="batch_all", references=memory)

    found, stats = loss(X, memory, related)
    positive = has.astype(int) @ other.T.astype(int) > 0
    values = [
        max(0.0, np.linalg.norm(X[a] - memory[p]) - np.linalg.norm(X[a] - memory[n]) + 0.2)
        for a in range(N)
        for p in np.flatnonzero(positive[a])
        for n in np.flatnonzero(~positive[a])
    ]
    np.testing.assert_allclose(found, np.mean([v for v in values if v > 0]), rtol=1e-4)
    assert float(stats["num_valid"]) == len(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: relations.shared_labels(LABELS), "matrix with a row for each item"),
        (lambda: relations.shared_labels([[0, 2]]), "values 0 and 1 alone"),
        (lambda: relations.shared_labels(np.eye(2), np.eye(3)), "one column for each label"),
        (lambda: relations.shared_labels(np.eye(2), at_least=0), "at_least=0 must be at least 1"),
        (lambda: relations.pairs([[0, 9]], 4), "the row 9, and rows are from 0 to 3"),
        (lambda: relations.pairs([0, 1], 4), r"\[pairs, 2\]"),
        (lambda: relations.pairs([[0.0, 1.0]], 4), r"\[pairs, 2\]"),
        (lambda: relations.pairs([[0, 1]], 4, negative=[[1, 0]]), "both positive and negative"),
        (lambda: losses.triplet_loss(X, relations.pairs([[0, 1]], 4)), r"booleans \(12, 12\)"),
        (
            lambda: losses.triplet_loss(X, relations.Relation(np.eye(N, dtype=int))),
            "relation.positive has the shape .* int",
        ),
        (
            lambda: losses.triplet_loss(X, OF_LABELS, references=X, reference_labels=LABELS),
            "leave their labels out",
        ),
        (
            lambda: losses.triplet_loss(X, LABELS, references=losses.References(X)),
            "has no labels: give them",
        ),
    ],
)
def test_what_makes_no_relation_is_refused(make, message):
    with pytest.raises(errors.InputError, match=message):
        make()


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(errors.InputError, match=r"^positive pairs must be .*\[pairs, 2\]"):
        relations.pairs([[0, 1], [2]], rows=3)
    with pytest.raises(errors.InputError, match=r"\[rows, labels\]"):
        relations.shared_labels([[0, 1], [1]])


def test_given_negatives_are_the_only_ones():
    found = relations.pairs([[0, 1]], rows=3, negative=[[2, 1]])
    assert found.positive.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert found.negative.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert found.negative.dtype == bool
