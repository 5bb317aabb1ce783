"""Retrieval against counting what is ahead of each positive."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation

KS = (1, 2, 4, 8)


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


def test_retrieval_is_the_mean_over_queries():
    x, labels = clusters(classes=5, per_class=12)
    labels = np.append(labels[:-1], 99)  # one without positives
    of_queries = evaluation.retrieval_of_queries(x, labels)
    means = evaluation.retrieval(x, labels)
    for name, values in of_queries.items():
        assert np.isnan(values[-1])
        np.testing.assert_allclose(np.nanmean(values), means[name], rtol=1e-6)
    assert all(
        np.isnan(v).all() for v in evaluation.retrieval_of_queries(x, np.arange(60)).values()
    )
