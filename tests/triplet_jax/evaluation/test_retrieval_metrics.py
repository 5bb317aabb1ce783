"""Retrieval against counting what is ahead of each positive."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation

KS = (1, 2, 4, 8)


POINTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=12, max_size=12)
"""A small grid of integers: many ties, and distances that float32 holds exactly."""
LABELS = st.lists(st.integers(0, 6), min_size=12, max_size=12)
COUNTS = {
    "queries",
    "queries_without_positives",
    "queries_not_finite",
    "references_not_finite",
    "references_ignored",
    "queries_among_references",
}


def agree(found, expected, whole_ranking=True, abs=1e-6):
    """Asserts that all scores are there and have these values."""
    if not whole_ranking:
        expected = {k: v for k, v in expected.items() if k.startswith(oracles.OF_NEIGHBOURS)}
    if expected:
        assert {k: found[k] for k in found.keys() - COUNTS} == pytest.approx(expected, abs=abs)


@pytest.mark.parametrize("whole_ranking", [False, True])
@hypothesis.given(points=POINTS, labels=LABELS)
def test_retrieval_agrees_with_a_naive_version(whole_ranking, points, labels):
    x = np.array(points, np.float32)
    found = evaluation.retrieval(x, np.array(labels), ks=KS, whole_ranking=whole_ranking)
    expected, queries = oracles.retrieval(x, labels, KS)
    assert found["queries"] == queries
    assert found["queries_without_positives"] == 12 - queries
    agree(found, expected, whole_ranking)


@pytest.mark.parametrize("whole_ranking", [False, True])
def test_retrieval_agrees_with_a_naive_version_over_several_tiles(whole_ranking):
    random = np.random.default_rng(0)
    x = random.normal(size=(600, 3)).astype(np.float32)
    labels = random.integers(0, 200, 600) ** 2
    found = evaluation.retrieval(x, labels, whole_ranking=whole_ranking)
    expected, queries = oracles.retrieval(x, labels, KS)
    assert found["queries"] == queries
    agree(found, expected, whole_ranking, abs=1e-4)


def test_average_precision_and_gain_are_those_of_scikit_learn():
    x, labels = clusters(classes=6, per_class=7, noise=1.5)
    found = evaluation.retrieval_of_queries(x, labels, ks=(1, 5, 41), whole_ranking=True)
    for row in range(len(x)):
        others = np.arange(len(x)) != row
        near = -np.linalg.norm(x[others].astype(np.float64) - x[row], axis=1)
        relevant = labels[others] == labels[row]
        precision = sklearn.metrics.average_precision_score(relevant, near)
        assert found["map"][row] == pytest.approx(precision, abs=1e-6)
        for k in (1, 5, 41):
            gain = sklearn.metrics.ndcg_score(relevant[None], near[None], k=k)
            assert found[f"ndcg_at_{k}"][row] == pytest.approx(gain, abs=1e-6)


def test_retrieval_does_not_depend_on_where_the_origin_is():
    random = np.random.default_rng(0)
    x = (random.normal(size=(200, 16)) + 1e4 * random.normal(size=16)).astype(np.float32)
    labels = random.integers(0, 20, 200)
    expected, _ = oracles.retrieval(x, labels, KS)
    agree(evaluation.retrieval(x, labels, whole_ranking=True), expected)


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


# -- queries that leave out references of their own group


def person_and_camera(queries=40, people=8, cameras=3, seed=0):
    """A gallery in which an image is nearer to its camera's than to its person's others."""
    random = np.random.default_rng(seed)
    person, camera = random.integers(0, people, queries), random.integers(0, cameras, queries)
    x = random.normal(size=(people, 8))[person] + 4 * random.normal(size=(cameras, 8))[camera]
    return (x + 0.1 * random.normal(size=x.shape)).astype(np.float32), person, camera


@pytest.mark.parametrize("whole_ranking", [False, True])
@hypothesis.given(
    points=POINTS,
    labels=LABELS,
    groups=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    bad=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_ignored_references_agree_with_a_naive_version(whole_ranking, points, labels, groups, bad):
    x, labels, groups = np.array(points, np.float32), np.array(labels), np.array(groups)
    x[np.array(bad), 0] = np.nan
    given = {"references": x[5:], "reference_labels": labels[5:]}
    ignore = (groups[:7], groups[5:])
    found = evaluation.retrieval(
        x[:7], labels[:7], **given, ignore=ignore, ks=KS, whole_ranking=whole_ranking
    )
    expected, queries = oracles.retrieval(x[:7], labels[:7], KS, **given, ignore=ignore)
    assert found["queries"] == queries
    agree(found, expected, whole_ranking)
    equal = labels[:7, None] == labels[None, 5:]
    assert found["references_ignored"] == (equal & (groups[:7, None] == groups[None, 5:])).sum()


def test_a_query_ignores_what_shares_its_label_and_its_group():
    x, person, camera = person_and_camera()
    given = {"references": x, "reference_labels": person, "whole_ranking": True}
    ignored = evaluation.retrieval(x, person, ignore=(camera, camera), **given)
    alone = evaluation.retrieval(x, person, **given)
    assert alone["precision_at_1"] == 1 and alone["queries_among_references"] == 40
    assert ignored["precision_at_1"] < 0.5 and ignored["queries_among_references"] == 0
    expected, _ = oracles.retrieval(x, person, KS, x, person, ignore=(camera, camera))
    agree(ignored, expected)
    names = np.array(["hall", "door", "lift"])[camera]
    assert evaluation.retrieval(x, person, ignore=(names, names), **given) == ignored
    # Without references a query is left out anyway, and so are those of its person and camera.
    same = evaluation.retrieval(x, person, ignore=(camera, camera), whole_ranking=True)
    assert same["references_ignored"] == ignored["references_ignored"] - 40
    agree(same, {name: ignored[name] for name in ignored.keys() - COUNTS})


def test_an_equal_row_of_another_class_is_no_query():
    x, labels = clusters(classes=4, per_class=5)
    own = np.arange(20)
    given = {"references": x, "reference_labels": labels}
    assert evaluation.retrieval(x, labels, **given)["queries_among_references"] == 20
    assert evaluation.retrieval(x, labels, **given, own=own)["queries_among_references"] == 0
    assert evaluation.retrieval(x, labels + 1, **given)["queries_among_references"] == 0


@pytest.mark.parametrize(
    "ignore, message",
    [
        (np.zeros((2, 12)), r"ignore is a ndarray: give a tuple of two arrays"),
        ((np.zeros(12),), r"ignore is a tuple: give a tuple of two arrays"),
        ((np.zeros(11), np.zeros(12)), r"ignore: query_groups have the shape \(11,\)"),
        ((np.zeros(12), np.zeros(11)), r"ignore: reference_groups have the shape \(11,\)"),
        (
            (np.zeros(12), ["hall"] * 12),
            r"ignore: query_groups have dtype float64 .* both must be strings",
        ),
    ],
)
def test_other_groups_are_refused(ignore, message, unchecked):
    with pytest.raises(errors.InputError, match=message):
        evaluation.retrieval(np.zeros((12, 2)), np.zeros(12, int), ignore=ignore)


# -- averages


def test_classes_count_alike_in_an_average_over_classes():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [30, 6, 2])
    x = (random.normal(size=(3, 4))[labels] + random.normal(size=(38, 4))).astype(np.float32)
    of_query = evaluation.retrieval_of_queries(x, labels, whole_ranking=True)
    found = evaluation.retrieval(x, labels, whole_ranking=True, average="classes")
    for name, score in of_query.items():
        expected = np.mean([score[labels == c].mean() for c in range(3)])
        assert found[name] == pytest.approx(expected, abs=1e-6), name
    with pytest.raises(errors.InputError, match="average"):
        evaluation.retrieval(x, labels, average="macro")


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(errors.InputError, match=r"first has the shape \(2, 1\) and second \(1, 1"):
        evaluation.retrieval_of_pairs([[0.0], [1.0]], [[0.2]], ks=(1,))
    with pytest.raises(errors.InputError, match="references and reference_labels belong together"):
        evaluation.retrieval([[0.0]], [0], references=[[1.0]])
