"""Verification of pairs against scikit-learn."""

import math
import tracemalloc

import numpy as np
import pytest
import sklearn.metrics

from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
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


def test_distances_whose_squares_overflow_are_measured():
    same, different = evaluation.pair_distances([[0.0], [2e30], [-1e30]], ["a", "b", "a"])
    np.testing.assert_allclose(same, [1e30], rtol=1e-6)
    np.testing.assert_allclose(np.sort(different), [2e30, 3e30], rtol=1e-6)


# -- pairs that a benchmark gives


def faces(noise=1.0, seed=0):
    """Pairs of examples, half of one class, in ten folds."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(40), 5)
    x = random.normal(size=(40, 6))[labels] + noise * random.normal(size=(200, 6))
    same = np.stack([np.arange(200), np.arange(200) // 5 * 5 + (np.arange(200) + 1) % 5], axis=1)
    others = np.stack([np.arange(200), (np.arange(200) + 7 * 5) % 200], axis=1)
    chosen = np.concatenate([same, others])[random.permutation(400)]
    return x.astype(np.float32), chosen, labels[chosen[:, 0]] == labels[chosen[:, 1]]


def test_folds_are_judged_by_the_threshold_of_the_others():
    x, pairs, is_same = faces()
    folds = np.arange(400) % 10
    found = evaluation.verification_of_pairs(x, pairs, is_same, folds=folds)
    distance = np.linalg.norm(x[pairs[:, 0]].astype(float) - x[pairs[:, 1]], axis=1)
    accuracies = []
    for fold in range(10):
        rest = folds != fold
        # Every threshold that tells other pairs apart.
        found_at = np.sort(distance[rest])
        between = (found_at[:-1] + found_at[1:]) / 2
        right = {t: np.mean((distance[rest] <= t) == is_same[rest]) for t in [-1.0, *between, 1e9]}
        best = max(right, key=right.get)
        accuracies.append(np.mean((distance[~rest] <= best) == is_same[~rest]))
    assert 0.7 < np.mean(accuracies) < 0.98
    assert found["accuracy"] == pytest.approx(np.mean(accuracies))
    assert found["accuracy_error"] == pytest.approx(np.std(accuracies, ddof=1) / np.sqrt(10))
    assert (found["folds"], found["same_pairs"], found["different_pairs"]) == (10, 200, 200)
    named = evaluation.verification_of_pairs(x, pairs, is_same, folds=[f"fold {f}" for f in folds])
    assert named == found


def test_pairs_score_as_all_pairs_do():
    x, _, _ = faces()
    labels = np.repeat(np.arange(40), 5)
    first, second = np.triu_indices(200, 1)
    pairs = np.stack([first, second], axis=1)
    found = evaluation.verification_of_pairs(x, pairs, labels[first] == labels[second])
    expected = evaluation.verification(x, labels)
    for name in expected.keys() & found.keys():
        assert found[name] == pytest.approx(expected[name], abs=1e-3), name
    assert found["tar_at_far_1e-6"] <= found["tar_at_far_1e-3"]


def test_a_rate_of_accepts_is_counted_exactly():
    # 1,000,001 different pairs at distances 1 to 1,000,001, and a same pair beyond each of three.
    x = np.arange(1_000_002, dtype=np.float64)[:, None].astype(np.float32)
    pairs = np.stack([np.zeros(1_000_001, int), np.arange(1, 1_000_002)], axis=1)
    more = [[0, 1], [0, 2], [0, 3]]
    is_same = np.append(np.zeros(1_000_001, bool), np.ones(3, bool))
    found = evaluation.verification_of_pairs(
        x, np.append(pairs, more, axis=0), is_same, false_accept_rates=(1e-6, 2e-6)
    )
    # At most 1 of 1,000,001 is 9.99999e-7; two of them are above 1e-6.
    assert found["tar_at_far_1e-6"] == pytest.approx(1 / 3)
    assert found["tar_at_far_2e-6"] == pytest.approx(2 / 3)


def test_a_pair_without_a_distance_is_told_wrongly():
    x, pairs, is_same = faces(noise=0.01)
    folds = np.arange(400) % 10
    assert evaluation.verification_of_pairs(x, pairs, is_same, folds=folds)["accuracy"] == 1
    x[3] = np.nan
    found = evaluation.verification_of_pairs(x, pairs, is_same, folds=folds)
    bad = int((pairs == 3).any(axis=1).sum())
    assert found["pairs_not_finite"] == bad and found["accuracy"] == pytest.approx(1 - bad / 400)


@pytest.mark.parametrize("all_same", [True, False])
def test_a_pair_without_a_distance_is_told_wrongly_where_all_or_none_are_accepted(all_same):
    x, pairs = [[0.0], [1.0], [np.nan]], [[0, 1], [0, 2], [1, 0], [2, 1]]
    found = evaluation.verification_of_pairs(x, pairs, [all_same] * 4, folds=[0, 0, 1, 1])
    assert found["pairs_not_finite"] == 2 and found["accuracy"] == 0.5


def test_folds_whose_others_have_no_distances_accept_nothing():
    x, pairs = [[0.0], [1.0], [np.nan]], [[0, 2], [2, 1], [0, 1], [1, 0]]
    is_same = [True, False, True, False]
    found = evaluation.verification_of_pairs(x, pairs, is_same, folds=[0, 0, 1, 1])
    assert found["accuracy"] == 0.25


@pytest.mark.parametrize(
    "change, message",
    [
        ({"pairs": np.zeros((400, 3), int)}, r"pairs have the shape \(400, 3\)"),
        ({"pairs": np.zeros((400, 2))}, "dtype float64: they must be whole numbers"),
        ({"pairs": np.full((400, 2), 200)}, "positions 200 to 200, and there are 200 examples"),
        ({"pairs": np.full((400, 2), -1)}, "positions -1 to -1"),
        ({"is_same": np.ones(399, bool)}, r"is_same have the shape \(399,\)"),
        ({"is_same": np.ones(400, int)}, "is_same has dtype int64; it must hold booleans"),
        ({"folds": np.zeros(400, int)}, "folds has 1 fold: at least two are needed"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change, message):
    x, pairs, is_same = faces()
    given = {"pairs": pairs, "is_same": is_same, "folds": np.arange(400) % 10} | change
    with pytest.raises(errors.InputError, match=message):
        evaluation.verification_of_pairs(x, **given)


def test_rates_have_names_of_their_own():
    rates = (0.2, 0.25, 0.015, 1e-3, 1.0, 0.0)
    names = [verification_pairs.rate_name("tar_at_far", rate) for rate in rates]
    endings = ["2e-1", "2.5e-1", "1.5e-2", "1e-3", "1e0", "0e0"]
    assert names == [f"tar_at_far_{ending}" for ending in endings]


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    x, labels = [[0.0], [1.0], [3.0], [4.0]], [0, 0, 1, 1]
    with pytest.raises(errors.InputError, match=r"^false_accept_rate=.* must be in \[0, 1\]"):
        evaluation.verification(x, labels, false_accept_rates=(rate,))
    with pytest.raises(errors.InputError, match=r"^false_accept_rate=.* must be in \[0, 1\]"):
        evaluation.roc(np.array([1.0]), np.array([2.0])).at(rate)
