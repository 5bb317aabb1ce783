"""Items of several embeddings, by their means and by their nearest rows, against loops."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation

KS = (1, 2, 5)
ROWS = hnp.arrays(np.float32, (16, 3), elements=st.integers(0, 3))
ITEMS = hnp.arrays(np.int64, 16, elements=st.integers(0, 7))


def nearest(x, items, others, other_items, metric):
    """The smallest distance of two items; rows that are not finite have none."""
    with np.errstate(invalid="ignore"):
        d = oracles.pairwise(x, others, metric)
    d[~np.isfinite(x).all(axis=1)] = np.inf
    d[:, ~np.isfinite(others).all(axis=1)] = np.inf
    return np.array(
        [
            [d[items == a][:, other_items == b].min() for b in np.unique(other_items)]
            for a in np.unique(items)
        ]
    )


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot"])
@hypothesis.given(
    x=ROWS,
    items=ITEMS,
    bad=hnp.arrays(bool, 16),
    of_item=hnp.arrays(np.int64, 8, elements=st.integers(0, 2)),
)
def test_the_nearest_row_of_an_item_counts(metric, x, items, bad, of_item):
    x[bad, 0] = np.nan
    labels, groups = of_item, of_item[::-1]
    queries, others = np.unique(items[:8]), np.unique(items[8:])
    d = nearest(x[:8], items[:8], x[8:], items[8:], metric)
    ignore = (groups[queries], groups[others])
    for same_names in (False, True):
        own = [list(others).index(a) if same_names and a in others else -1 for a in queries]
        found = evaluation.nearest_of_items(
            x[:8],
            items[:8],
            references=x[8:],
            reference_items=items[8:],
            same_names=same_names,
            metric=metric,
        )
        scores = evaluation.retrieval(
            found, labels[queries], reference_labels=labels[others], ignore=ignore, ks=KS
        )
        expected, count = oracles.retrieval_by_distance(
            d, labels[queries], KS, labels[others], own, ignore
        )
        assert scores["queries"] == count
        expected = oracles.of_neighbours(expected)
        assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@hypothesis.given(x=ROWS, items=ITEMS)
def test_items_search_each_other(x, items):
    names = np.array([f"item {i}" for i in items])
    labels = np.unique(items) % 3
    found = evaluation.retrieval(
        evaluation.nearest_of_items(x, names), labels, ks=KS, whole_ranking=True
    )
    d = nearest(x, items, x, items, "euclidean")
    expected, _ = oracles.retrieval_by_distance(d, labels, KS, labels, range(len(labels)))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["queries_among_references"] == 0


def test_rows_as_items_score_as_rows_in_tiles(monkeypatch):
    x, labels = clusters(classes=5, per_class=8)
    expected = evaluation.retrieval(x, labels)
    monkeypatch.setattr("triplet_jax.evaluation.items._VALUES", 100)
    found = evaluation.nearest_of_items(x, np.arange(40))
    assert evaluation.retrieval(found, labels) == pytest.approx(expected)
    found = evaluation.nearest_of_items(x, np.arange(40), references=x)
    scores = evaluation.retrieval(found, labels, reference_labels=labels)
    given = {"references": x, "reference_labels": labels}
    assert scores == pytest.approx(evaluation.retrieval(x, labels, **given))
    assert scores["queries_among_references"] == 40


@hypothesis.given(x=ROWS, items=ITEMS, bad=hnp.arrays(bool, 16))
def test_means_are_those_of_finite_rows(x, items, bad):
    x[bad, 1] = np.inf
    for unit in (True, False):
        found, names = evaluation.mean_of_items(x, items, unit=unit)
        np.testing.assert_array_equal(names, np.unique(items))
        for mean, item in zip(found, names, strict=True):
            rows = x[(items == item) & ~bad].astype(np.float64)
            if not len(rows):
                assert np.isnan(mean).all()
                continue
            if unit:
                rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
            expected = rows.mean(axis=0)
            if unit:
                expected = expected / max(np.linalg.norm(expected), 1e-300)
            np.testing.assert_allclose(mean, expected, atol=1e-6)


def test_class_means_are_references():
    x, labels = clusters(classes=5, per_class=8, noise=2.0)
    means, classes = evaluation.mean_of_items(x, labels, unit=False)
    found = evaluation.retrieval(x, labels, references=means, reference_labels=classes, ks=(1,))
    nearest = classes[np.argmin(oracles.pairwise(x, means, "euclidean"), axis=1)]
    assert found["precision_at_1"] == pytest.approx((nearest == labels).mean())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, i: evaluation.of_items([1, 2, 2], i), "the rows of 1 items differ, .*'a'.*1.*2"),
        (lambda x, i: evaluation.of_items([1, 2], i), r"labels have the shape \(2,\)"),
        (lambda x, i: evaluation.mean_of_items(x, i[:2]), r"items have the shape \(2,\)"),
        (lambda x, i: evaluation.nearest_of_items(x, i, metric="near"), "metric"),
        (lambda x, i: evaluation.nearest_of_items(x, i, same_names=True), "go with references"),
        (
            lambda x, i: evaluation.nearest_of_items(x, i, references=x, same_names=True),
            "needs reference_items",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, message, unchecked):
    with pytest.raises(errors.InputError, match=message):
        call(np.zeros((3, 2)), ["a", "a", "b"])
