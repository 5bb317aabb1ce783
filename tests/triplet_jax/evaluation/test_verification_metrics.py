"""Verification of pairs against scikit-learn."""

import math
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics

from tests.support.clusters import clusters
from triplet_jax import evaluation
from triplet_jax.evaluation import verification_metrics as verification_pairs


def test_verification_agrees_with_scikit_learn_on_all_pairs():
    x, labels = clusters(noise=1.0)
    found = evaluation.verification(x, labels)
    i, j = np.triu_indices(len(x), 1)
    d = np.linalg.norm(x[i] - x[j], axis=1)
    same = labels[i] == labels[j]
    assert (found["same_pairs"], found["different_pairs"]) == (same.sum(), (~same).sum())
    assert found["roc_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(same, -d))
    for rate in (1e-1, 1e-2, 1e-3):
        allowed = math.floor(rate * (~same).sum())
        threshold = np.sort(d[~same])[allowed]  # accepts `allowed` of the different pairs
        expected = (d[same] < threshold).mean()
        assert found[f"tar_at_far_1e-{round(-math.log10(rate))}"] == pytest.approx(expected)
    thresholds = np.unique(d)
    rejected = np.array([(d[same] > t).mean() for t in thresholds])
    accepted = np.array([(d[~same] <= t).mean() for t in thresholds])
    crossing = np.argmin(np.abs(rejected - accepted))
    assert found["eer"] == pytest.approx(accepted[crossing], abs=0.01)


def test_verification_of_a_sample_is_near_that_of_all_pairs():
    x, labels = clusters(classes=30, per_class=20, noise=1.0)
    everything = evaluation.verification(x, labels)
    sample = evaluation.verification(x, labels, max_pairs=4000, seed=1)
    assert (sample["same_pairs"], sample["different_pairs"]) == (4000, 4000)
    assert sample["roc_auc"] == pytest.approx(everything["roc_auc"], abs=0.02)


def test_sampled_pairs_are_distinct_and_of_their_kind():
    labels = np.random.default_rng(0).integers(0, 9, 300)
    random = np.random.default_rng(1)
    same = verification_pairs._same_pairs(labels, 500, random)
    different = verification_pairs._different_pairs(labels, 500, random)
    for pairs, expected in ((same, True), (different, False)):
        assert len({tuple(sorted(pair)) for pair in pairs}) == 500
        assert (pairs[:, 0] != pairs[:, 1]).all()
        assert ((labels[pairs[:, 0]] == labels[pairs[:, 1]]) == expected).all()
    same = sum(c * (c - 1) // 2 for c in np.bincount(labels))
    for draw, count in (
        (verification_pairs._same_pairs, same),
        (verification_pairs._different_pairs, 300 * 299 // 2 - same),
    ):
        every = draw(labels, 10**9, random)
        assert len({tuple(sorted(p)) for p in every}) == len(every) == count


def test_a_class_that_is_nearly_all_leaves_few_pairs_of_two():
    labels = np.repeat([0, 1], [290, 10])
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    assert evaluation.verification(x, labels, max_pairs=3000)["different_pairs"] == 2900


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.arange(5)])
def test_verification_without_pairs_of_one_kind_is_nan(labels):
    found = evaluation.verification(np.eye(5, dtype=np.float32), labels)
    assert math.isnan(found["roc_auc"])


def test_the_roc_curve_and_its_thresholds():
    same, different = np.array([0.1, 0.2, 0.9], np.float32), np.array([0.5, 0.8, 1.0, 1.2])
    curve = evaluation.roc(same, different)
    for rate, threshold, tar in ((0.0, 0.2, 2 / 3), (0.25, 0.5, 2 / 3), (0.5, 0.9, 1.0)):
        found = curve.at(rate)
        np.testing.assert_allclose(found, (threshold, np.mean(different <= threshold), tar))
    assert curve.at(0.0).false_accepts == 0
    assert evaluation.roc(np.array([2.0]), np.array([1.0])).at(0.5).true_accepts == 0


def test_pairs_of_long_rows_take_little_memory():
    """Raw pixels of photographs have 9,408 values a row; their pairs took gigabytes."""
    x = np.random.default_rng(0).normal(size=(100, 4_000)).astype(np.float32)
    labels = np.arange(100) % 10
    tracemalloc.start()
    try:
        same, different = evaluation.pair_distances(x, labels)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 64 * 2**20  # all pairs at once would take 150
    i, j = np.triu_indices(len(x), 1)
    expected = np.sort(np.linalg.norm(x[i].astype(np.float64) - x[j], axis=1))
    np.testing.assert_allclose(np.sort(np.concatenate([same, different])), expected, rtol=1e-5)
