"""Episodes of few-shot classification against a plain version."""

import numpy as np
import pytest

from tests.support.clusters import clusters
from triplet_jax import errors, evaluation


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


def test_one_way_is_refused_and_one_episode_has_no_interval():
    settings = {"shots": 1, "queries": 1, "episodes": 1, "seed": 0}
    x, labels = [[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1]
    with pytest.raises(errors.InputError, match="ways=1 must be at least 2"):
        evaluation.few_shot(x, labels, ways=1, **settings)
    assert np.isnan(evaluation.few_shot(x, labels, ways=2, **settings)["ci95"])


def test_too_few_classes_of_a_group_are_counted_by_group():
    x, labels = np.zeros((12, 1)), np.arange(12) // 2
    settings = {"shots": 1, "queries": 1, "episodes": 2, "seed": 0, "groups": labels // 3}
    with pytest.raises(errors.InputError, match="no group has more than 3 classes"):
        evaluation.few_shot(x, labels, ways=5, **settings)
