"""Retrieval by graded relevance, against the definition, `retrieval` and scikit-learn."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import sklearn.metrics

from triplet_jax import errors, evaluation

GRADES = st.integers(0, 3)


@st.composite
def searches(draw):
    """Queries and references on a coarse grid, so that ties are many, and a relevance."""
    queries, references = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    x, y = random.integers(0, 3, (queries, 2)), random.integers(0, 3, (references, 2))
    return (
        x,
        y,
        random.integers(0, 4, (queries, references))
        * (random.random((queries, references)) < draw(st.sampled_from([0.1, 0.5, 1.0]))),
    )


def by_definition(x, y, gains, ks):
    """The mean scores, query by query; of equally near references the least relevant is first."""
    rows = []
    for query, gain in zip(x, gains, strict=True):
        r = int((gain > 0).sum())
        if not r:
            continue
        squared = ((y - query) ** 2).sum(axis=1)
        g = [gain[i] for i in sorted(range(len(y)), key=lambda i: (squared[i], gain[i]))]
        ranks = [i + 1 for i, value in enumerate(g) if value > 0]
        precision = [(n + 1) / rank for n, rank in enumerate(ranks)]
        row = {
            "precision_at_1": float(g[0] > 0),
            "r_precision": sum(rank <= r for rank in ranks) / r,
            "map_at_r": sum(p for p, rank in zip(precision, ranks, strict=True) if rank <= r) / r,
            "map": sum(precision) / r,
            "mrr": 1 / ranks[0],
            "minp": r / ranks[-1],
        }
        for k in ks:
            row[f"recall_at_{k}"] = float(ranks[0] <= k)
            within = [p for p, rank in zip(precision, ranks, strict=True) if rank <= k]
            row[f"map_at_{k}"] = sum(within) / min(r, k)
            best = sorted(gain, reverse=True)

            def dcg(values, k=k):
                return sum(value / np.log2(i + 2) for i, value in enumerate(values[:k]))

            row[f"ndcg_at_{k}"] = dcg(g) / dcg(best)
        rows.append(row)
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]} if rows else {}


@hypothesis.given(searches())
def test_scores_are_those_of_the_definition(search):
    x, y, gains = search
    found = evaluation.retrieval_by_relevance(x, gains, references=y, ks=(1, 3))
    expected = by_definition(x, y, gains, (1, 3))
    assert found["queries"] == (gains > 0).any(axis=1).sum()
    assert found["queries"] + found["queries_without_positives"] == len(x)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert expected or np.isnan(found["map"])


@hypothesis.given(st.integers(0, 10**6), st.sampled_from(["euclidean", "cosine", "manhattan"]))
def test_one_label_a_row_scores_as_labels_do(seed, metric):
    random = np.random.default_rng(seed)
    x, labels = random.integers(-2, 3, (14, 2)), random.integers(0, 4, 14)
    x = x.astype(np.float32)
    x[random.random(14) < 0.1] = np.nan
    by_labels = evaluation.retrieval(x, labels, metric=metric, ks=(1, 2, 5), whole_ranking=True)
    found = evaluation.retrieval_by_relevance(
        x, labels[:, None] == labels, metric=metric, ks=(1, 2, 5)
    )
    for name, value in found.items():
        assert value == pytest.approx(by_labels[name], abs=1e-6, nan_ok=True), name


def test_graded_gain_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)), random.normal(size=(50, 3))
    gains = random.integers(0, 5, (20, 50))
    found = evaluation.retrieval_by_relevance(x, gains, references=y, ks=(10, 50))
    near = -np.linalg.norm(x[:, None].astype(np.float32) - y.astype(np.float32), axis=2)
    for k in (10, 50):
        assert found[f"ndcg_at_{k}"] == pytest.approx(
            sklearn.metrics.ndcg_score(gains, near, k=k), rel=1e-9
        )
    precision = [
        sklearn.metrics.average_precision_score(gain > 0, value)
        for gain, value in zip(gains, near, strict=True)
    ]
    assert found["map"] == pytest.approx(np.mean(precision), rel=1e-9)


def test_a_query_is_not_relevant_to_itself():
    x, relevance = [[0.0], [0.0], [5.0]], np.ones((3, 3))
    assert evaluation.retrieval_by_relevance(x, np.eye(3))["queries"] == 0
    found = evaluation.retrieval_by_relevance(x, relevance, references=x, own=[0, 1, 2])
    assert found == evaluation.retrieval_by_relevance(x, relevance)


@pytest.mark.parametrize(
    ("relevance", "message"),
    [
        ([0, 1], r"shape \(2,\)"),
        ([[0, 1, 1], [1, 0, 1]], "column for each reference"),
        ([["a", "b"], ["c", "d"]], "must be numbers"),
        ([[0, -1], [1, 0]], "at least 0"),
        ([[0, np.nan], [1, 0]], "finite"),
    ],
)
def test_another_relevance_is_refused(relevance, message):
    with pytest.raises(errors.InputError, match=message):
        evaluation.retrieval_by_relevance([[0.0], [1.0]], relevance)


def test_other_bad_input_is_refused():
    with pytest.raises(errors.InputError, match="ks="):
        evaluation.retrieval_by_relevance([[0.0], [1.0]], np.eye(2), ks=(0,))
    with pytest.raises(errors.InputError, match="metric"):
        evaluation.retrieval_by_relevance([[0.0], [1.0]], np.eye(2), metric="euclidian")
