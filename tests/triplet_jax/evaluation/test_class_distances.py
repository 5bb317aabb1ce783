"""The nearest classes against every distance in float64, one query at a time."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
from triplet_jax.evaluation import class_distances


def brute_force(queries, references, labels, by, k, own=None, without=None):
    """The distance from each query to each class; infinite where there is none."""
    q, r, labels = np.asarray(queries, float), np.asarray(references, float), np.asarray(labels)
    names = sorted(set(labels.tolist()))
    found = np.full((len(q), len(names)), np.inf)
    for i in range(len(q)):
        for c, name in enumerate(names):
            rows = [j for j in range(len(r)) if labels[j] == name]
            rows = [j for j in rows if own is None or j != own[i]]
            if not rows or (without is not None and without[i] == name):
                continue
            if by == "means":
                found[i, c] = np.sqrt(((q[i] - r[rows].mean(axis=0)) ** 2).sum())
            else:
                each = sorted(np.sqrt(((q[i] - r[j]) ** 2).sum()) for j in rows)
                found[i, c] = np.mean(each[:k])
    return names, found


@hypothesis.given(
    by=st.sampled_from(class_distances.BY),
    k=st.integers(1, 5),
    grid=st.booleans(),
    left_out=st.booleans(),
    shift=st.sampled_from([0.0, 1000.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_nearest_classes_are_those_of_brute_force(by, k, grid, left_out, shift, seed):
    """On a grid classes tie; classes have one to six members, fewer than k too."""
    random = np.random.default_rng(seed)
    labels = np.repeat(["b", "a", "d", "c"], random.integers(1, 7, 4))
    random.shuffle(labels)
    draw = (
        (lambda n: random.integers(0, 3, (n, 2)))
        if grid
        else (lambda n: random.normal(size=(n, 2)))
    )
    references = draw(len(labels)).astype(np.float32) + np.float32(shift)
    queries = references if left_out else draw(9).astype(np.float32) + np.float32(shift)
    own = np.arange(len(queries)) if left_out else None
    without = random.choice(["a", "c", "nobody"], len(queries)) if left_out else None
    found = evaluation.nearest_classes(
        queries, references, labels, by=by, neighbours=k, classes=3, own=own, without=without
    )
    names, expected = brute_force(queries, references, labels, by, k, own, without)
    assert found.names.tolist() == names
    ranked = np.sort(expected, axis=1)[:, :3]
    np.testing.assert_allclose(found.distances, ranked, rtol=1e-6, atol=1e-9)
    there = np.isfinite(found.distances)
    assert (found.positions[~there] == -1).all()
    at = np.take_along_axis(expected, np.maximum(found.positions, 0), axis=1)
    np.testing.assert_allclose(found.distances[there], at[there], rtol=1e-6, atol=1e-9)
    # Of equally near classes the first by name.
    for row, first in zip(expected, found.positions[:, 0], strict=True):
        assert first < 0 or (row[:first] > row[first] * (1 + 1e-12)).all()


def test_one_neighbour_agrees_with_the_search_in_tiles(monkeypatch):
    x, labels = clusters(noise=1.0)
    monkeypatch.setattr(class_distances, "_VALUES", 7 * len(x))
    found = evaluation.nearest_classes(x, x, labels, own=np.arange(len(x)), classes=1)
    distance, position = evaluation.nearest(x, None, neighbours=1)
    np.testing.assert_allclose(found.distances, distance, rtol=1e-5)
    assert (found.names[found.positions] == labels[position]).all()


def test_near_copies_are_as_far_as_they_are():
    """Lengths of 1e5 leave a matrix product no digits for the last bit of one value."""
    x = np.random.default_rng(0).normal(0, 3e4, (7, 8)).astype(np.float32)
    x[5], x[6] = x[0], x[0]
    x[6, 3] = np.nextafter(x[6, 3], np.float32(np.inf))
    found = evaluation.nearest_classes(x[:1], x[1:], [1, 1, 1, 1, 2, 3])
    step = x[6, 3] - x[0, 3]
    assert 0 < step < 0.01
    assert found.distances.tolist() == [[0, step]] and found.positions.tolist() == [[1, 2]]


def test_a_class_of_one_is_nothing_without_it():
    x, labels = [[0.0], [1.0], [5.0]], ["a", "a", "b"]
    for by in class_distances.BY:
        found = evaluation.nearest_classes(x, x, labels, by=by, own=[0, 1, 2])
        assert found.positions.tolist() == [[0, 1], [0, 1], [0, -1]]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"by": "means "}, "by='means ' is not known.*means"),
        ({"neighbours": 0}, "neighbours=0 must be at least 1"),
        ({"classes": 0}, "classes=0 must be at least 1"),
        ({"references": np.zeros((0, 2)), "reference_labels": []}, "references are empty"),
        ({"references": np.zeros((2, 3))}, "same number of columns"),
        ({"reference_labels": ["a"]}, r"reference_labels have the shape \(1,\)"),
        ({"without": [1]}, "without have dtype int64 and reference_labels"),
        ({"own": [2]}, r"own must be whole numbers in \[-1, 1\]"),
        ({"queries": [[np.nan, 0.0]]}, "rows of queries have NaN"),
    ],
)
def test_what_cannot_be_searched_is_refused(change, message):
    given = {"queries": [[0.0, 0.0]], "references": np.eye(2), "reference_labels": ["a", "b"]}
    with pytest.raises(errors.InputError, match=message):
        evaluation.nearest_classes(**(given | change))
