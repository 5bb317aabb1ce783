"""Planted label noise: exact shares, the right kind of mistake, and nothing new."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triplet_jax import errors
from triplet_jax.data import label_noise


@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=8),
    fraction=st.floats(0, 0.95),
    kind=st.sampled_from(["symmetric", "class_conditional"]),
    seed=st.integers(0, 1000),
)
def test_the_share_of_every_class_is_exact(counts, fraction, kind, seed):
    classes = np.arange(len(counts)) * 3 + 1
    labels = np.random.default_rng(seed).permutation(np.repeat(classes, counts))
    given_ = label_noise.plant(labels, fraction, kind=kind, seed=seed)
    assert set(given_) <= set(classes)
    for c, count in zip(classes, counts, strict=True):
        assert (given_[labels == c] != c).sum() == round(fraction * count)
    again = label_noise.plant(labels, fraction, kind=kind, seed=seed)
    np.testing.assert_array_equal(given_, again)


def test_symmetric_noise_reaches_all_other_classes_alike():
    labels = np.repeat(np.arange(5), 4000)
    given_ = label_noise.plant(labels, 0.5, kind="symmetric", seed=0)
    counts = np.bincount(given_[(labels == 2) & (given_ != 2)], minlength=5)
    assert counts[2] == 0
    np.testing.assert_allclose(counts[[0, 1, 3, 4]] / 2000, 0.25, atol=0.04)


def test_class_conditional_noise_has_one_follower_for_each_class():
    labels = np.repeat(np.arange(6), 50)
    given_ = label_noise.plant(labels, 0.4, kind="class_conditional", seed=1)
    followers = [set(given_[(labels == c) & (given_ != c)]) for c in range(6)]
    assert all(len(f) == 1 for f in followers)
    assert len(set.union(*followers)) == 6


def test_noise_within_groups_stays_there():
    labels = np.repeat(np.arange(5), 40)
    groups = np.array([0, 0, 1, 1, 2])
    given_ = label_noise.plant(labels, 0.3, kind="within_group", seed=0, groups=groups)
    np.testing.assert_array_equal(groups[given_], groups[labels])
    assert (given_[labels == 4] == 4).all()  # alone in its group
    assert (given_ != labels).sum() == 4 * 12
    with pytest.raises(errors.InputError, match="within_group"):
        label_noise.plant(labels, 0.3, kind="within_group", seed=0)


def test_no_noise_changes_nothing_and_bad_numbers_are_refused():
    labels = np.arange(4)
    assert label_noise.plant(labels, 0.0, kind="symmetric", seed=0) is labels
    for fraction in (-0.1, 1.0):
        with pytest.raises(errors.InputError, match="fraction=.* must be at least 0"):
            label_noise.plant(labels, fraction, kind="symmetric", seed=0)
    with pytest.raises(errors.InputError, match="two training classes"):
        label_noise.plant(np.zeros(5, int), 0.5, kind="symmetric", seed=0)
    with pytest.raises(errors.InputError, match="kind='sym' is not known"):
        label_noise.plant(labels, 0.5, kind="sym", seed=0)
