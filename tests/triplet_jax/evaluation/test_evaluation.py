import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from tests.support import oracles
from triplet_jax import distances, errors, evaluation
from triplet_jax.evaluation import verification_metrics as verification_pairs

KS = (1, 2, 4, 8)


def clusters(seed=0, classes=8, per_class=10, dim=5, noise=0.5):
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    x = random.normal(size=(classes, dim))[labels] + noise * random.normal(size=(len(labels), dim))
    return x.astype(np.float32), labels


# -- nearest neighbours


@pytest.mark.parametrize("metric", sorted(set(distances.METRICS) - {"mahalanobis", "minkowski"}))
@pytest.mark.parametrize("n", [3, 40, 700])  # below, within and over several tiles
def test_nearest_are_those_of_a_full_sort(metric, n):
    x = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
    d = np.array(distances.pairwise(jnp.asarray(x), jnp.asarray(x), metric), np.float64)
    np.fill_diagonal(d, np.inf)
    found, position = evaluation.nearest(x, None, neighbours=min(n - 1, 10), metric=metric)
    expected = np.sort(d, axis=1)[:, : min(n - 1, 10)]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(np.take_along_axis(d, position, 1), expected, atol=1e-5)


def test_nearest_in_references_may_be_the_query_itself():
    x, _ = clusters()
    found, position = evaluation.nearest(x[:7], x, neighbours=1)
    np.testing.assert_array_equal(position[:, 0], np.arange(7))
    np.testing.assert_allclose(found, 0, atol=2e-3)


def test_equally_near_references_come_in_their_order():
    x = np.zeros((9, 2), np.float32)
    _, position = evaluation.nearest(x, None, neighbours=4)
    for row in range(9):
        expected = [j for j in range(9) if j != row][:4]
        assert position[row].tolist() == expected


@pytest.mark.parametrize("neighbours", [0, 9])
def test_more_neighbours_than_references_are_refused(neighbours):
    with pytest.raises(errors.InputError, match=r"must be in \[1, 8\]"):
        evaluation.nearest(np.zeros((9, 2), np.float32), None, neighbours=neighbours)


# -- retrieval


@hypothesis.given(
    # A small grid of integers: many ties, and distances that float32 holds exactly.
    points=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=12, max_size=12),
    labels=st.lists(st.integers(0, 6), min_size=12, max_size=12),
)
def test_retrieval_agrees_with_a_naive_version(points, labels):
    x = np.array(points, np.float32)
    found = evaluation.retrieval(x, np.array(labels), ks=KS)
    expected, queries = oracles.retrieval(x, labels, KS)
    assert found["queries"] == queries
    assert found["queries_without_positives"] == 12 - queries
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_retrieval_agrees_with_a_naive_version_over_several_tiles():
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 3)).astype(np.float32)
    labels = random.integers(0, 200, 600) ** 2
    found = evaluation.retrieval(x, labels)
    expected, queries = oracles.retrieval(x, labels, KS)
    assert found["queries"] == queries
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-4), name


def test_retrieval_does_not_depend_on_where_the_origin_is():
    random = np.random.default_rng(0)
    x = (random.normal(size=(200, 16)) + 1e4 * random.normal(size=16)).astype(np.float32)
    labels = random.integers(0, 20, 200)
    expected, _ = oracles.retrieval(x, labels, KS)
    for name, value in expected.items():
        assert evaluation.retrieval(x, labels)[name] == pytest.approx(value, abs=1e-6), name


def test_a_huge_row_is_far_from_all_others_and_spoils_no_rank():
    x, labels = clusters()
    others = labels > 0
    expected = evaluation.retrieval_of_queries(x[others], labels[others])["map_at_r"]
    x[labels == 0] = 1e30
    found = evaluation.retrieval_of_queries(x, labels)["map_at_r"][others]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_k_is_at_least_1():
    x, labels = clusters()
    with pytest.raises(errors.InputError, match=r"ks=\(1, 0\) must be at least 1"):
        evaluation.retrieval(x, labels, ks=(1, 0))
    found = evaluation.retrieval(x, labels, ks=())
    assert found["map_at_r"] == evaluation.retrieval(x, labels)["map_at_r"]


def test_retrieval_by_hand():
    # On a line, the first query sees a positive, a negative, a positive.
    x = np.array([[0.0], [1.0], [2.0], [3.0]], np.float32)
    references, reference_labels = x[1:], np.array([5, 6, 5])
    found = evaluation.retrieval(
        x[:1], np.array([5]), references=references, reference_labels=reference_labels, ks=(1, 9)
    )
    assert found["precision_at_1"] == found["recall_at_1"] == found["recall_at_9"] == 1
    assert found["r_precision"] == found["map_at_r"] == 0.5


def test_retrieval_without_positives_is_nan():
    found = evaluation.retrieval(np.eye(4, dtype=np.float32), np.arange(4))
    assert math.isnan(found["map_at_r"])
    assert (found["queries"], found["queries_without_positives"]) == (0, 4)


def test_large_labels_are_told_apart():
    x, labels = clusters(noise=0.1)
    plain = evaluation.retrieval(x, labels)
    assert evaluation.retrieval(x, labels + 2**24) == plain
    assert evaluation.retrieval(x, labels + 2**40) == plain


# -- few-shot


def test_few_shot_of_separated_and_of_random_classes():
    x, labels = clusters(noise=0.01)
    settings = {"ways": 5, "shots": 1, "episodes": 200, "seed": 0}
    assert evaluation.few_shot(x, labels, **settings)["accuracy"] == 1
    chance = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    found = evaluation.few_shot(chance, labels, **settings)
    assert found["accuracy"] == pytest.approx(0.2, abs=2 * found["ci95"])
    assert 0 < found["ci95"] < 0.05


def test_few_shot_agrees_with_a_naive_version():
    x, labels = clusters(noise=1.0)
    found = evaluation.few_shot(x, labels, ways=8, shots=9, episodes=50, seed=3, queries=1)
    # All classes and all examples are used: each episode leaves one example a class out.
    random = np.random.default_rng(4)
    accuracies = []
    for _ in range(400):
        left = random.integers(10, size=8)
        mean = [np.delete(x[labels == c], left[c], axis=0).mean(axis=0) for c in range(8)]
        hits = [
            np.argmin([((x[labels == c][left[c]] - m) ** 2).sum() for m in mean]) == c
            for c in range(8)
        ]
        accuracies.append(np.mean(hits))
    assert found["accuracy"] == pytest.approx(np.mean(accuracies), abs=2.5 * found["ci95"])


def test_few_shot_within_groups_draws_classes_of_one_group():
    # Two groups far apart: across them classes are easy to tell, within one impossible.
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 12)
    groups = (labels >= 5).astype(int)
    x = (100.0 * groups[:, None] + random.normal(size=(120, 3))).astype(np.float32)
    settings = {"ways": 5, "shots": 1, "episodes": 300, "seed": 0}
    within = evaluation.few_shot(x, labels, groups=groups, **settings)
    across = evaluation.few_shot(x, labels, **settings)
    assert within["accuracy"] == pytest.approx(0.2, abs=0.05)
    assert across["accuracy"] > 0.3


def test_few_shot_of_nothing_is_refused():
    x, labels = clusters()
    with pytest.raises(errors.InputError, match="shots=0, .* must be at least 1"):
        evaluation.few_shot(x, labels, ways=2, shots=0, episodes=5, seed=0)


def test_few_shot_without_enough_classes_is_refused():
    x, labels = clusters()
    with pytest.raises(errors.InputError, match="ways=9 with 6 examples each: there are only 8"):
        evaluation.few_shot(x, labels, ways=9, shots=1, episodes=2, seed=0)


# -- verification


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


# -- clustering


def test_clustering_finds_separated_classes():
    x, labels = clusters(noise=0.01)
    assert evaluation.clustering(x, labels) == {
        "nmi": 1.0,
        "ami": 1.0,
        "clusters": 8,
        "examples_not_finite": 0,
    }
