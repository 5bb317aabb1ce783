"""Nearest neighbours are those of a full sort."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from tests.support.clusters import clusters
from triplet_jax import distances, errors, evaluation

METRICS = sorted(set(distances.METRICS) - {"mahalanobis", "minkowski"})


@pytest.mark.parametrize(
    ("metric", "n"),  # below, within and over several tiles
    cases.mostly_slow(
        [(metric, n) for metric in METRICS for n in (3, 40, 700)],
        [("dot", 40), ("cosine", 700), ("euclidean", 3)],
    ),
)
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
