"""Items, expanded queries and re-ranking in the evaluation of files."""

import numpy as np
import pytest

from experiments.run import file_scores, rankings
from experiments.run.rankings import Ranking
from tests.support.clusters import clusters
from triplet_jax import errors, evaluation
from triplet_jax.evaluation.embedding_files import Embedded


def embedded(roles=True, groups=None):
    """12 classes of 6 rows, of which 3 items show two rows each."""
    x, labels = clusters(classes=12, per_class=6, noise=0.9)
    items = np.array([f"item {i}" for i in np.arange(72) // 2])
    asks = np.arange(72) % 6 < 2 if roles else np.ones(72, bool)
    return Embedded(x, labels, groups, asks, ~asks if roles else asks, items)


def score(ranking, given):
    return evaluation.retrieval(**ranking.search(given, "a.npz"), whole_ranking=True)


def test_without_steps_rows_are_ranked():
    for roles in (True, False):
        given = embedded(roles)
        assert score(Ranking(), given) == evaluation.retrieval(**given.search(), whole_ranking=True)
    assert Ranking().steps() == ()


def test_items_are_compared_by_means_or_nearest_rows():
    given = embedded(groups=np.arange(72) // 2 % 3)
    x, asks, there = given.embeddings, given.is_query, given.is_gallery
    ignore = (evaluation.of_items(given.groups[asks], given.items[asks]),)
    ignore += (evaluation.of_items(given.groups[there], given.items[there]),)
    labels, others = (
        evaluation.of_items(given.labels[rows], given.items[rows]) for rows in (asks, there)
    )
    means = [evaluation.mean_of_items(x[r], given.items[r], unit=False)[0] for r in (asks, there)]
    expected = evaluation.retrieval(
        means[0],
        labels,
        references=means[1],
        reference_labels=others,
        ignore=ignore,
        whole_ranking=True,
    )
    found = score(Ranking("mean"), given)
    assert found == pytest.approx(expected) and found["queries"] == 12
    near = evaluation.nearest_of_items(
        x[asks], given.items[asks], references=x[there], reference_items=given.items[there]
    )
    expected = evaluation.retrieval(
        near, labels, reference_labels=others, ignore=ignore, whole_ranking=True
    )
    assert score(Ranking("nearest"), given) == pytest.approx(expected)


@pytest.mark.parametrize("items", rankings.ITEMS)
def test_an_item_on_both_sides_does_not_find_itself(items):
    given = embedded()
    among_themselves = score(Ranking(items), embedded(roles=False))
    asks = np.arange(72) % 6 < 4
    both = Embedded(given.embeddings, given.labels, None, asks, np.ones(72, bool), given.items)
    found = evaluation.retrieval_of_queries(**Ranking(items).search(both, "a.npz"))
    every = evaluation.retrieval_of_queries(**Ranking(items).search(embedded(roles=False), "a.npz"))
    # The items of the queries, in the order of their names.
    names = np.unique(given.items)
    asked = np.isin(names, given.items[asks])
    np.testing.assert_allclose(found["map_at_r"], every["map_at_r"][asked])
    assert among_themselves["queries"] == 36
    # A row that queries and another of its item that is searched are no pair of one row.
    apart = np.arange(72) % 2 == 0
    split = Embedded(given.embeddings, given.labels, None, apart, ~apart, given.items)
    assert (
        "own" not in Ranking(items).search(split, "")
        or (Ranking(items).search(split, "")["own"] == -1).all()
    )
    assert score(Ranking(items), split)["queries"] == 36


def test_rows_of_unit_length_have_means_of_unit_length():
    given = embedded(roles=False)
    x = given.embeddings / np.linalg.norm(given.embeddings, axis=1, keepdims=True)
    unit = Embedded(x, given.labels, None, given.is_query, given.is_gallery, given.items)
    for each, expected in ((unit, True), (given, False)):
        means = Ranking("mean").search(each, "")["embeddings"]
        wanted, _ = evaluation.mean_of_items(each.embeddings, given.items, unit=expected)
        np.testing.assert_array_equal(means, wanted)


@pytest.mark.parametrize("roles", [True, False])
def test_queries_are_expanded_and_then_reranked(roles):
    given = embedded(roles)
    search = given.search()
    x = search["embeddings"]
    references = search.get("references", x)
    own = search.get("own", np.arange(len(x)))
    moved = evaluation.expand_queries(
        x, references, own=own, count=4, alpha=2.0, metric="euclidean"
    )
    more = {"reference_labels": search.get("reference_labels", given.labels)}
    more["whole_ranking"] = True
    labels = search["labels"]
    expected = evaluation.retrieval(moved, labels, references=references, own=own, **more)
    assert score(Ranking(expand=(4, 2.0)), given) == expected
    near = evaluation.k_reciprocal(moved, references, own=own, k1=5, k2=2, weight=0.5)
    expected = evaluation.retrieval(near, labels, **more)
    assert score(Ranking(expand=(4, 2.0), rerank=(5, 2, 0.5)), given) == expected
    plain = evaluation.k_reciprocal(x, search.get("references"), own=search.get("own"), k1=5, k2=2)
    if not roles:
        more.pop("reference_labels")
    expected = evaluation.retrieval(plain, labels, **more)
    assert score(Ranking(rerank=(5, 2, 0.3)), given) == expected


def test_a_file_is_scored_as_it_is_ranked(tmp_path, capsys):
    given = embedded(roles=False)
    np.savez(
        tmp_path / "a.npz",
        embeddings=given.embeddings,
        labels=given.labels,
        items=given.items,
    )
    np.savez(
        tmp_path / "b.npz", embeddings=given.embeddings * 2, labels=given.labels, items=given.items
    )
    path, other = str(tmp_path / "a.npz"), str(tmp_path / "b.npz")
    ranking = Ranking("mean", (4, 0.0), (5, 2, 0.3))
    found = file_scores.evaluate_files([path, other], "test", None, ranking=ranking)
    assert found["files"][path]["retrieval"] == score(ranking, given)
    assert found["less_the_first"][other]["map"]["mean"] == pytest.approx(0, abs=1e-6)
    assert "clustering" not in found["files"][path]
    said = found["protocol"]["retrieval"]
    assert said.startswith("each of 36 items searches all others; Euclidean; items by their mean;")
    assert "; queries expanded by their 4 nearest, alpha 0; re-ranked by" in said


def test_flags_become_a_ranking():
    assert rankings.of_flags(None, None, None) == Ranking()
    assert rankings.of_flags("mean", ["10"], ["20", "6", "0.3"]) == Ranking(
        "mean", (10, 0.0), (20, 6, 0.3)
    )
    assert rankings.of_flags("", ["10", "3"], None).expand == (10, 3.0)


@pytest.mark.parametrize(
    "given, message",
    [
        ((None, None, ["20"]), "--rerank=20 must be K1,K2,WEIGHT"),
        ((None, None, ["20", "6", "much"]), "--rerank=20,6,much must be K1,K2,WEIGHT"),
        ((None, ["1", "2", "3"], None), "--expand_queries=1,2,3 must be COUNT or COUNT,ALPHA"),
        ((None, ["few"], None), "--expand_queries=few must be COUNT or COUNT,ALPHA"),
        (("nearest", None, ["20", "6", "0.3"]), "--items=nearest goes without"),
    ],
)
def test_other_flags_are_refused(given, message):
    with pytest.raises(errors.InputError, match=message):
        rankings.of_flags(*given)


def test_what_a_file_lacks_or_a_number_out_of_range_is_named():
    given = embedded()
    plain = Embedded(given.embeddings, given.labels, None, given.is_query, given.is_gallery)
    with pytest.raises(errors.InputError, match="--items=mean needs items: a.npz has none"):
        Ranking("mean").search(plain, "a.npz")
    with pytest.raises(errors.InputError, match="a.npz: --rerank: k1=0 must be"):
        Ranking(rerank=(0, 1, 0.3)).search(plain, "a.npz")
    with pytest.raises(errors.InputError, match="a.npz: --expand_queries: count=0 must be"):
        Ranking(expand=(0, 1.0)).search(plain, "a.npz")
    grouped = embedded(groups=np.arange(72))
    with pytest.raises(errors.InputError, match="a.npz: groups: the rows of 12 items differ"):
        Ranking("mean").search(grouped, "a.npz")
