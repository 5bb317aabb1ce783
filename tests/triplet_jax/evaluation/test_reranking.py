"""Re-ranked distances against loops over the paper's definitions."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
from triplet_jax.devices import processes
from triplet_jax.evaluation import near_sets, reranking

KS = (1, 2, 5)
METRICS = ("euclidean", "cosine", "manhattan", "jaccard", "signal_to_noise")
EQUAL = 1e-9  # above the rounding of both, and below what tells two small fractions apart


def distances_of(x, metric):
    d = oracles.pairwise(x, x, metric)
    d = d**2 if metric == "euclidean" else d
    np.fill_diagonal(d, 0.0)
    return d


def ahead(d, others, j):
    """How many are as near as j or nearer."""
    return sum(d[o] <= d[j] + EQUAL * max(1, d[j]) for o in others)


def nearest(d, i, k):
    """i with its k nearest others, of which ties come in together or not at all."""
    others = [j for j in range(len(d)) if j != i]
    return {i} | {j for j in others if ahead(d[i], others, j) <= k}


def reranked(x, k1, k2, weight, metric="euclidean"):
    """Distances between all rows, by the definition."""
    n, d = len(x), distances_of(x, metric)

    def reciprocal(k):
        near = [nearest(d, i, k) for i in range(n)]
        return [{j for j in near[i] if i in near[j]} for i in range(n)]

    found, half = reciprocal(k1), reciprocal(round(k1 / 2))
    farthest = d.max(axis=1)
    share = np.array([d[i] / farthest[i] if farthest[i] > 1e-12 else 0 * d[i] for i in range(n)])
    v = np.zeros((n, n))
    for i in range(n):
        grown = set(found[i])
        for j in found[i]:
            if 3 * len(half[j] & found[i]) > 2 * len(half[j]):
                grown |= half[j]
        for j in grown:
            v[i, j] = np.exp(-share[i, j])
        v[i] /= v[i].sum()
    encoded = np.array([v[sorted(nearest(d, i, k2 - 1))].mean(axis=0) for i in range(n)])
    jaccard = np.array(
        [[1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in encoded] for a in encoded]
    )
    return (1 - weight) * jaccard + weight * share


@pytest.mark.parametrize("metric", METRICS)
@hypothesis.given(
    x=hnp.arrays(np.float32, (14, 3), elements=st.integers(1, 4)),
    k1=st.integers(1, 9),
    k2=st.integers(1, 6),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_distances_are_those_of_the_paper(metric, x, k1, k2, weight):
    found = evaluation.k_reciprocal(x[:5], x[5:], k1=k1, k2=k2, weight=weight, metric=metric)
    order = [*range(5, 14), *range(5)]  # references first
    expected = reranked(x[order], k1, k2, weight, metric)[9:, :9]
    np.testing.assert_allclose(found.of_rows(np.arange(5))[0], expected, atol=1e-9)


@pytest.mark.parametrize("whole_ranking", [False, True])
@hypothesis.given(
    x=hnp.arrays(np.float32, (14, 3), elements=st.integers(0, 3)),
    labels=hnp.arrays(np.int64, 14, elements=st.integers(0, 4)),
    groups=hnp.arrays(np.int64, 14, elements=st.integers(0, 2)),
    bad=hnp.arrays(bool, 14, elements=st.booleans()),
    seed=st.integers(0, 99),
)
def test_scores_are_those_of_the_distances(whole_ranking, x, labels, groups, bad, seed):
    # Five queries and nine references; some queries are references, and some rows are not finite.
    random = np.random.default_rng(seed)
    bad &= random.random(14) < 0.3
    own = np.where(random.random(5) < 0.5, random.integers(5, 14, 5), -1)
    x[:5] = np.where(own[:, None] >= 0, x[own], x[:5])
    bad[:5] = np.where(own >= 0, bad[own], bad[:5])
    x[bad, 0] = np.nan
    items = [i for i in [*range(5, 14), *range(5)] if not bad[i] and (i > 4 or own[i] < 0)]
    d = np.full((14, 14), np.inf)
    if items:
        d[np.ix_(items, items)] = reranked(x[items], 4, 3, 0.3)
    d = np.round(d / EQUAL) * EQUAL
    d = np.stack([d[o if o >= 0 else q, 5:] for q, o in enumerate(own)])
    own = np.where(own >= 0, own - 5, -1)
    found = evaluation.retrieval(
        evaluation.k_reciprocal(x[:5], x[5:], own=own, k1=4, k2=3),
        labels[:5],
        reference_labels=labels[5:],
        ignore=(groups[:5], groups[5:]),
        ks=KS,
        whole_ranking=whole_ranking,
    )
    expected, queries = oracles.retrieval_by_distance(
        d, labels[:5], KS, labels[5:], own, (groups[:5], groups[5:])
    )
    assert found["queries"] == queries
    assert found["references_not_finite"] == bad[5:].sum()
    expected = expected if whole_ranking else oracles.of_neighbours(expected)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_ignored_references_are_neighbours_but_are_not_ranked():
    x, labels = clusters(classes=6, per_class=8)
    groups = np.arange(48) % 3
    found = evaluation.k_reciprocal(x, k1=6, k2=3)
    of_query = evaluation.retrieval_of_queries(found, labels, ignore=(groups, groups), ks=KS)
    expected, _ = oracles.retrieval_by_distance(
        reranked(x, 6, 3, 0.3), labels, KS, labels, range(48), (groups, groups)
    )
    for name, score in of_query.items():
        assert score.mean() == pytest.approx(expected[name], abs=1e-9), name
    # Of 8 rows of a class 3, 3 and 2 share a group.
    scores = evaluation.retrieval(found, labels, ignore=(groups, groups))
    assert scores["references_ignored"] == 6 * (3 * 2 + 3 * 2 + 2)


def test_neighbours_in_common_help():
    x, labels = clusters(classes=12, per_class=20, noise=0.7)
    plain, again = (
        evaluation.retrieval(evaluation.k_reciprocal(x, weight=w), labels, whole_ranking=True)
        for w in (1.0, 0.3)
    )
    assert again["map"] > plain["map"] + 0.05


def test_a_constant_embedding_scores_nothing_and_order_plays_no_part():
    x, labels = clusters(classes=5, per_class=8)
    x = np.round(x)
    order = np.random.default_rng(1).permutation(40)
    first = evaluation.retrieval_of_queries(evaluation.k_reciprocal(x, k1=5), labels)
    other = evaluation.retrieval_of_queries(evaluation.k_reciprocal(x[order], k1=5), labels[order])
    for name, score in first.items():
        np.testing.assert_array_equal(score[order], other[name])
    same = np.full((40, 8), 0.3)
    for x in (same, np.concatenate([same[:20], 2 * same[20:]])):
        found = evaluation.retrieval(evaluation.k_reciprocal(x), labels)
        assert found["map_at_r"] == found["recall_at_8"] == 0


def test_rows_of_many_ties_and_of_several_tiles_agree_with_one_row_at_a_time(monkeypatch):
    x = np.random.default_rng(0).integers(0, 4, (60, 3)).astype(np.float32)
    whole, _ = evaluation.k_reciprocal(x, k1=7, k2=3).of_rows(np.arange(60))
    np.testing.assert_allclose(whole, reranked(x, 7, 3, 0.3), atol=1e-9)
    for module, name in ((near_sets, "_TILE"), (reranking, "_ROWS"), (reranking, "_PAIRS")):
        monkeypatch.setattr(module, name, 7)
    again, _ = evaluation.k_reciprocal(x, k1=7, k2=3).of_rows(np.arange(60))
    np.testing.assert_allclose(again, whole, atol=1e-12)


def test_a_far_row_hides_no_neighbour():
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    x[0] = 1e15
    found, _ = evaluation.k_reciprocal(x, k1=5).of_rows(np.arange(40))
    np.testing.assert_allclose(found, reranked(x, 5, 6, 0.3), atol=1e-9)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"k1": 0}, "k1=0 must be a whole number of at least 1"),
        ({"k2": 1.5}, "k2=1.5 must be a whole number"),
        ({"weight": 1.1}, r"weight=1.1 must be in \[0, 1\]"),
        ({"metric": "dot"}, "dot"),
        ({"references": np.zeros((3, 4))}, "the same number of columns"),
    ],
)
def test_other_settings_are_refused(given, message, unchecked):
    with pytest.raises(errors.InputError, match=message):
        evaluation.k_reciprocal(np.zeros((5, 2)), **given)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"metric": "cosine"}, "metric='cosine' is given with Distances"),
        ({"own": np.arange(5)}, "references or own are given with Distances"),
        ({"reference_labels": None}, "reference_labels is missing"),
    ],
)
def test_what_distances_know_is_refused(given, message):
    x = np.eye(5)
    found = evaluation.k_reciprocal(x, x + 1)
    with pytest.raises(errors.InputError, match=message):
        evaluation.retrieval(found, np.arange(5), **{"reference_labels": np.arange(5)} | given)


def test_each_process_ranks_its_share(monkeypatch):
    x, labels = clusters(classes=5, per_class=7)
    near = evaluation.k_reciprocal(x, k1=5)
    whole = evaluation.retrieval_of_queries(near, labels)["map_at_r"]
    found = []
    for process in range(2):  # of 18 rows each, of which the last is filled with zeros

        def own_share(rows, first=18 * process):
            part = rows[first : first + 18]
            return np.concatenate(
                [part, np.zeros((18 - len(part), *rows.shape[1:]), rows.dtype)]
            ), 0

        def keep(scores, rows):
            found.append(scores["map_at_r"])
            return {name: np.zeros(rows) for name in scores}

        monkeypatch.setattr(processes, "own_share", own_share)
        monkeypatch.setattr(processes, "all_shares", keep)
        evaluation.retrieval_of_queries(near, labels)
    np.testing.assert_array_equal(np.concatenate(found)[:35], whole)


@pytest.mark.parametrize("query", [0.0, np.nan])
@pytest.mark.parametrize("references", [[], [np.nan], [np.nan, np.inf]])
def test_nothing_to_search_is_near_to_nothing(query, references):
    among = np.reshape(references, (-1, 1))
    near = evaluation.k_reciprocal([[query], [query]], among, k1=2, k2=1)
    distance, equal = near.of_rows(np.arange(2))
    assert distance.shape == equal.shape == (2, len(references))
    assert not np.isfinite(distance).any()
