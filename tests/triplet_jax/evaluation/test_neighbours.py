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


def test_rows_that_float32_cannot_order_are_ordered_by_float64():
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 3)).astype(np.float32)
    x[:40] = x[0] + 1e-5 * random.normal(size=(40, 3))  # more of them than are looked at
    found, position = evaluation.nearest(x, None, neighbours=4)
    d = np.linalg.norm(np.float64(x)[:, None] - x, axis=2)
    np.fill_diagonal(d, np.inf)
    np.testing.assert_array_equal(position, np.argsort(d, axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(found, np.sort(d, axis=1)[:, :4], rtol=1e-5, atol=1e-7)


def test_a_query_that_is_no_reference_looks_beside_one_that_is():
    farthest = np.array([3000.0, -2000.0, 1000.0], np.float32)
    # Opposite, and nearer by less than float32 tells in a product.
    other = -farthest
    other[2] = np.nextafter(other[2], np.float32(0))
    references = np.stack([farthest, other, np.ones(3, np.float32)])
    for order in ([0, 1, 2], [1, 0, 2]):
        x = references[order]
        queries = np.stack([x[0], np.zeros(3, np.float32)])
        _, position = evaluation.nearest(queries, x, neighbours=2, own=[0, -1])
        assert position[1].tolist() == [2, order.index(1)]


def test_no_queries_have_no_neighbours():
    found, position = evaluation.nearest(np.zeros((0, 2)), np.zeros((3, 2)), neighbours=2)
    assert (found.shape, position.shape) == ((0, 2), (0, 2))
    assert (found.dtype, position.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize("neighbours", [0, 9])
def test_more_neighbours_than_references_are_refused(neighbours):
    with pytest.raises(errors.InputError, match=r"must be in \[1, 8\]"):
        evaluation.nearest(np.zeros((9, 2), np.float32), None, neighbours=neighbours)
