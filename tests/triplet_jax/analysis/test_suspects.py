"""Planted label errors come first."""

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.analysis import suspects


def test_planted_errors_are_the_first_suspects():
    random = np.random.default_rng(0)
    right = np.repeat(np.arange(6), 40)
    x = (np.eye(6)[right] * 6 + random.normal(size=(240, 6))).astype(np.float32)
    wrong = np.zeros(240, bool)
    wrong[random.choice(240, 12, replace=False)] = True
    labels = np.where(wrong, (right + 1 + random.integers(5, size=240)) % 6, right)
    table = suspects.rank(x, labels)
    assert sorted(table.index) == list(range(240))
    for column in ("suspicion", "disagreement", "picked"):
        assert suspects.average_precision(table, wrong, by=column) > 0.9, column
    first = table.head(12)
    assert np.mean(first.instead == right[first.index]) > 0.9
    np.testing.assert_array_equal(table.label, labels[table.index])


def test_an_example_alone_in_its_class_is_the_first_suspect(blobs):
    x, labels = blobs
    labels = np.append(labels[:-1], 99)
    table = suspects.rank(x, labels)
    assert table.index[0] == 59 and table.suspicion[59] == np.inf
    assert suspects.average_precision(table, np.arange(60) == 59) == 1
    first_and_third = np.isin(np.arange(60), table.index[[0, 2]])
    assert suspects.average_precision(table, first_and_third) == pytest.approx(5 / 6)


def test_most_classes_may_have_a_single_example(blobs):
    x, labels = blobs
    labels = np.where(np.arange(60) < 30, labels, np.arange(60))
    table = suspects.rank(x, labels)
    alone = table.index >= 30
    assert (table.picked[alone] == 0).all() and (table.picked[~alone] > 0).any()


def test_misplacement_is_the_ratio_of_distances(blobs):
    x, labels = blobs
    labels = np.append(labels[:-1], 99)  # one alone in its class
    d = np.linalg.norm(x[:, None].astype(np.float64) - x[None], axis=2)
    expected = []
    for i in range(60):
        own = sorted(d[i, j] for j in range(60) if j != i and labels[j] == labels[i])[:4]
        other = sorted(d[i, j] for j in range(60) if labels[j] != labels[i])[:4]
        expected.append(np.mean(own) / np.mean(other) if own else np.inf)
    found = suspects.misplacement(x, labels, neighbours=4, tile=7)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (suspects.misplacement(x[:5], np.zeros(5, int)) == 0).all()


def test_copies_with_different_labels_are_as_near_to_either_class():
    x = [[0.0], [0.0], [0.0], [0.0], [5.0], [6.0]]
    found = suspects.misplacement(x, [0, 0, 1, 1, 0, 1], neighbours=1)
    np.testing.assert_allclose(found, [1, 1, 1, 1, 5, 6])
    assert suspects.misplacement([[0.0], [1.0], [2.0]], [0, 1, 1], neighbours=1)[0] == np.inf


def test_picks_count_farthest_positives_and_nearest_negatives():
    # One class on a line with an outlier, another far away: every anchor's pick is known.
    x = np.array([[0.0], [1.0], [5.0], [20.0], [21.0], [22.5]], np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1])
    picked = suspects.picked_as_hardest(x, labels, classes=2, per_class=3, batches=4)
    # Farthest positives: 2, 2, 0 and 5, 5, 3. Nearest negatives: 3, 3, 3 and 2, 2, 2.
    np.testing.assert_array_equal(picked, [1, 0, 5, 4, 0, 2])
    with pytest.raises(errors.InputError, match="per_class=4"):
        suspects.picked_as_hardest(x, labels, per_class=4)
