"""Classes that a run has yet to learn and another had learnt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import oracles
from triplet_jax.curricula import learnability


@functools.partial(jax.jit, static_argnums=(1, 2))
def confusion(x, per_class, metric, margin):
    return learnability.confusion(x, per_class=per_class, metric=metric, margin=margin)


@functools.partial(jax.jit, static_argnums=2)
def chosen(learner, reference, classes, strictness, key):
    return learnability.chosen(learner, reference, classes=classes, strictness=strictness, key=key)


def confusion_by_hand(x, per_class, metric, margin):
    """The mean hinge over all triplets of two classes, by loops."""
    d = oracles.pairwise(x, x, metric)
    classes = len(x) // per_class
    found = np.zeros((classes, classes))
    members = np.arange(len(x)).reshape(classes, per_class)
    for a in range(classes):
        for b in range(classes):
            if a != b:
                found[a, b] = np.mean(
                    [
                        max(0.0, d[i, p] - d[i, n] + margin)
                        for i in members[a]
                        for p in members[a]
                        if p != i
                        for n in members[b]
                    ]
                )
    return found


@given(
    # Few shapes, each of which is compiled.
    shape=st.sampled_from([(1, 2), (3, 2), (4, 3)]),
    metric=st.sampled_from(["euclidean", "cosine"]),
    margin=st.floats(0.0, 2.0),
    seed=st.integers(0, 2**16),
)
def test_confusion_is_the_mean_hinge_of_all_triplets_of_two_classes(shape, metric, margin, seed):
    classes, per_class = shape
    x = np.random.default_rng(seed).normal(size=(classes * per_class, 3))
    found = confusion(jnp.asarray(x, jnp.float32), per_class, metric, margin)
    expected = confusion_by_hand(x, per_class, metric, margin)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def confusions(seed, count=7):
    """What two runs confuse."""
    both = np.random.default_rng(seed).random((2, count, count)).astype(np.float32)
    return jnp.asarray(both * ~np.eye(count, dtype=bool))


@given(seed=st.integers(0, 2**16), classes=st.sampled_from([1, 4, 7]))
def test_a_very_strict_choice_takes_what_adds_most_to_the_classes_before(seed, classes):
    learner, reference = confusions(seed)
    drawn = chosen(learner, reference, classes, 1e6, jax.random.key(seed))
    gain = np.asarray(learner + learner.T - reference - reference.T)
    taken = [int(np.argmax(gain.sum(axis=1)))]
    while len(taken) < classes:
        of_each = gain[:, taken].sum(axis=1)
        of_each[taken] = -np.inf
        taken.append(int(np.argmax(of_each)))
    assert drawn.tolist() == taken


@pytest.mark.parametrize("strictness", [0.0, 1.5, 4.0])
def test_what_is_drawn_first_follows_the_softmax_of_the_scores(strictness):
    """Three of seven classes can be learnt."""
    learner = np.zeros((7, 7), np.float32)
    learner[:3, :3] = 1 - np.eye(3)
    keys = jax.random.split(jax.random.key(0), 800)

    @jax.jit
    @jax.vmap
    def draw(key):
        return learnability.chosen(
            jnp.asarray(learner), jnp.zeros((7, 7)), classes=3, strictness=strictness, key=key
        )

    drawn = np.asarray(draw(keys))
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    gain = learner + learner.T
    deviation = np.std(gain[~np.eye(7, dtype=bool)])
    weight = np.exp(strictness * gain.sum(axis=1) / 6 / deviation)
    expected = weight[:3].sum() / weight.sum()
    # Four deviations of a share of 800 draws.
    assert np.mean(drawn[:, 0] < 3) == pytest.approx(expected, abs=0.07)


@given(seed=st.integers(0, 2**16), scale=st.sampled_from([1e-3, 0.5, 8.0]))
def test_a_choice_does_not_depend_on_the_scale_of_the_loss(seed, scale):
    learner, reference = confusions(seed)
    key = jax.random.key(seed)
    draws = [chosen(factor * learner, factor * reference, 4, 2.0, key) for factor in (1.0, scale)]
    np.testing.assert_array_equal(*draws)


def test_where_nothing_is_left_to_learn_the_choice_is_random():
    nothing = jnp.zeros((4, 4))
    drawn = learnability.chosen(nothing, nothing, classes=4, strictness=5.0, key=jax.random.key(0))
    assert sorted(drawn.tolist()) == [0, 1, 2, 3]
