"""Near pairs against all distances, and their groups against what can be reached."""

import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.spatial.distance

from triplet_jax import errors, evaluation
from triplet_jax.evaluation import close_pairs


@hypothesis.given(
    rows=st.integers(1, 40),
    shift=st.sampled_from([0.0, 1e4, 1e18]),
    within=st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    tile=st.sampled_from([1, 7, 64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_pairs_are_those_of_brute_force_on_the_limit_too(rows, shift, within, tile, seed):
    """On a grid many distances are exactly the limit. At 1e18 all rows are one, or far apart."""
    random = np.random.default_rng(seed)
    x = (random.integers(0, 4, (rows, 3)) + shift * random.integers(0, 2, (rows, 1))).astype("f4")
    before, close_pairs._TILE = close_pairs._TILE, tile
    try:
        found = evaluation.pairs_within(x, within=within)
    finally:
        close_pairs._TILE = before
    d = scipy.spatial.distance.cdist(x.astype(float), x.astype(float))
    expected = [(i, j) for i in range(rows) for j in range(i + 1, rows) if d[i, j] <= within]
    assert sorted(map(tuple, found.pairs.tolist())) == expected
    np.testing.assert_allclose(found.distances, d[tuple(found.pairs.T)])
    assert (np.diff(found.distances) >= 0).all()
    groups = found.groups(rows)
    # A row's group is all that can be reached from it.
    reached = (d <= within) | np.eye(rows, dtype=bool)
    for _ in range(6):
        reached = reached @ reached
    for row in range(rows):
        if reached[row].sum() == 1:
            assert groups[row] == -1
        else:
            assert ((groups == groups[row]) == reached[row]).all()
    assert sorted(set(groups.tolist()) - {-1}) == list(range(groups.max() + 1))


def test_copies_are_found_however_far_from_the_origin():
    x = np.random.default_rng(0).normal(1e4, 1.0, (500, 16)).astype(np.float32)
    x[400:] = x[:100]
    found = evaluation.pairs_within(x, within=1e-6)
    assert found.pairs.tolist() == [[i, 400 + i] for i in range(100)]
    assert (found.distances == 0).all()


def test_memory_does_not_grow_with_the_square_of_the_rows():
    x = np.random.default_rng(0).normal(size=(12_000, 8)).astype(np.float32)
    tracemalloc.start()
    try:
        evaluation.pairs_within(x, within=0.05)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 128 * 2**20  # the matrix of all distances has 550


def test_what_cannot_be_searched_is_refused():
    for within in (-1.0, np.nan, np.inf):
        with pytest.raises(errors.InputError, match="must be a distance, at least 0"):
            evaluation.pairs_within(np.eye(3), within=within)
    with pytest.raises(errors.InputError, match="more than 10 pairs of 9 rows. Give a smaller"):
        evaluation.pairs_within(np.zeros((9, 2)), within=0.5, most=10)
    with pytest.raises(errors.InputError, match="NaN"):
        evaluation.pairs_within([[np.nan]], within=1.0)


@pytest.mark.filterwarnings("error")
def test_no_rows_have_no_pairs_and_rows_without_values_are_all_equal():
    assert evaluation.pairs_within(np.zeros((0, 3)), within=1.0).pairs.shape == (0, 2)
    found = evaluation.pairs_within(np.zeros((3, 0)), within=0.0)
    assert found.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert found.distances.tolist() == [0, 0, 0]
