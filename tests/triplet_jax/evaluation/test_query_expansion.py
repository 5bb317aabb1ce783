"""Expanded queries against a loop over the definition."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation


def expanded(queries, references, own, count, alpha, metric):
    queries, references = queries.astype(np.float64), references.astype(np.float64)
    found, d = [], oracles.pairwise(queries, references, metric)
    cosine = 1 - oracles.pairwise(queries, references, "cosine")

    def row(x):
        return x / max(np.linalg.norm(x), 1e-300) if metric == "cosine" else x

    for q in range(len(queries)):
        others = [c for c in range(len(references)) if c != own[q]]
        near = [c for c in others if sum(d[q, o] <= d[q, c] + 1e-9 for o in others) <= count]
        weights = [max(cosine[q, c], 0.0) ** alpha for c in near]
        total = row(queries[q]) + sum(
            w * row(references[c]) for w, c in zip(weights, near, strict=True)
        )
        found.append(row(total / (1 + sum(weights))))
    return np.array(found)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@hypothesis.given(
    x=hnp.arrays(np.float32, (14, 3), elements=st.integers(-2, 3)),
    count=st.integers(1, 12),
    alpha=st.sampled_from([0.0, 1.0, 3.0]),
    own=hnp.arrays(np.int64, 5, elements=st.integers(-1, 8)),
)
def test_queries_are_moved_as_defined(metric, x, count, alpha, own):
    given = {"count": count, "alpha": alpha, "metric": metric}
    found = evaluation.expand_queries(x[:5], x[5:], own=own, **given)
    expected = expanded(x[:5], x[5:], own, **given)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = evaluation.expand_queries(x, **given)
    np.testing.assert_allclose(found, expanded(x, x, range(14), **given), atol=1e-6)


def test_expansion_helps_and_works_in_parts(monkeypatch):
    x, labels = clusters(classes=12, per_class=20, noise=0.7)
    plain = evaluation.retrieval(x, labels, metric="cosine")["map_at_r"]
    moved = evaluation.expand_queries(x, count=8, alpha=3.0)
    given = {"references": x, "reference_labels": labels, "own": np.arange(240)}
    assert evaluation.retrieval(moved, labels, metric="cosine", **given)["map_at_r"] > plain + 0.02
    monkeypatch.setattr("triplet_jax.evaluation.query_expansion._ROWS", 24)
    again = evaluation.expand_queries(x, count=8, alpha=3.0)
    np.testing.assert_allclose(again, moved, atol=1e-6)


def test_rows_that_are_not_finite_move_nothing_and_stay():
    x, _ = clusters()
    bad = np.concatenate([x, np.full((2, 5), np.nan, np.float32)])[[80, *range(80), 81]]
    found = evaluation.expand_queries(bad, count=3)
    np.testing.assert_array_equal(found[1:-1], evaluation.expand_queries(x, count=3))
    assert np.isnan(found[[0, -1]]).all()
    moved = evaluation.expand_queries(x[:2], bad[:1], metric="euclidean")
    np.testing.assert_array_equal(moved, x[:2])


@pytest.mark.parametrize(
    "given, message",
    [
        ({"count": 0}, "count=0 must be a whole number of at least 1"),
        ({"alpha": -1}, "alpha=-1 must be a finite number of at least 0"),
        ({"metric": "manhattan"}, "manhattan"),
        ({"references": np.zeros((3, 4))}, "the same number of columns"),
    ],
)
def test_other_settings_are_refused(given, message, unchecked):
    with pytest.raises(errors.InputError, match=message):
        evaluation.expand_queries(np.ones((5, 2)), **given)
