"""The search of rows for each other, against a sort of all values and a top-k."""

import functools

import numpy as np
import pytest

from tests.support import oracles
from tests.support.clusters import clusters
from triplet_jax import evaluation
from triplet_jax.evaluation import among_themselves, retrieval_scores

BLOCK = 32


def searched(x, number):
    """What is found, and the values that a sort of all products finds."""
    bias = -0.5 * (x**2).sum(axis=1)
    found = among_themselves.nearest_rows(x, bias, number, block=BLOCK)
    value = x @ x.T + bias
    np.fill_diagonal(value, -np.inf)
    return found, value, -np.sort(-value, axis=1)[:, :number]


def of_whole_numbers(rows=330, largest=400, seed=0):
    """Rows whose products float32 holds exactly, in the order of their first column."""
    x = np.random.default_rng(seed).integers(-largest, largest, (rows, 3)).astype(np.float32)
    return x[np.argsort(x[:, 0])]


@pytest.mark.parametrize("rows", [32, 97, 330])
def test_the_nearest_rows_are_those_of_a_sort(rows):
    found, value, expected = searched(of_whole_numbers(rows), 4)
    assert found.found.mean() > 0.7
    np.testing.assert_array_equal(found.values[found.found], expected[found.found])
    at = np.take_along_axis(value, found.positions, axis=1)
    np.testing.assert_array_equal(at[found.found], expected[found.found])
    assert all(len(set(row)) == 4 for row in found.positions[found.found])


def test_a_row_whose_threshold_was_too_high_is_reported(monkeypatch):
    monkeypatch.setattr(among_themselves, "_depth", lambda number, share: 1)
    found, _, expected = searched(of_whole_numbers(), 4)
    assert 0.05 < found.found.mean() < 0.95
    np.testing.assert_array_equal(found.values[found.found], expected[found.found])
    monkeypatch.undo()
    assert not searched(np.ones((100, 3), np.float32), 4)[0].found.any()


def test_a_row_that_is_never_found_takes_no_place():
    x = of_whole_numbers()
    bias = -0.5 * (x**2).sum(axis=1)
    bias[::5] = -1e37
    found = among_themselves.nearest_rows(x, bias, 4, block=BLOCK)
    assert found.found.mean() > 0.9
    assert (found.positions[found.found] % 5 > 0).all()


@pytest.fixture
def among(monkeypatch):
    """Lets small searches take the way of large ones; the list tells how many did."""
    taken = []
    whole = retrieval_scores._of_nearest

    def of_nearest(*given):
        taken.append(given)
        return whole(*given)

    small = functools.partial(among_themselves.nearest_rows, block=BLOCK)
    monkeypatch.setattr(among_themselves, "pays", lambda rows, number: True)
    monkeypatch.setattr(among_themselves, "nearest_rows", small)
    monkeypatch.setattr(retrieval_scores, "_of_nearest", of_nearest)
    return taken


def by_top_k(x, labels, **settings):
    """The scores of a search for references, which are the rows: they are found by a top-k."""
    return evaluation.retrieval_of_queries(
        x, labels, references=x.copy(), reference_labels=labels, own=np.arange(len(x)), **settings
    )


def rounded(x):
    return np.round(2 * x)


def with_bad_rows(x):
    x = x.copy()
    x[3], x[5, 1], x[7] = np.nan, np.inf, 0.0
    return x


def with_copies(x):
    x = x.copy()
    x[40:60], x[90:100] = x[0], x[1]
    return x


@pytest.mark.parametrize("few", [retrieval_scores._FEW, 2.0])
@pytest.mark.parametrize("change", [np.asarray, rounded, with_bad_rows, with_copies])
@pytest.mark.parametrize("metric", ["euclidean", "squared_euclidean"])
def test_the_scores_are_those_of_a_top_k(among, monkeypatch, few, change, metric):
    monkeypatch.setattr(retrieval_scores, "_FEW", few)
    x, labels = clusters(classes=60, per_class=5, noise=0.5)
    labels[:7] = np.arange(100, 107)  # classes of one
    x = change(x)
    found = evaluation.retrieval_of_queries(x, labels, ks=(1, 3), metric=metric)
    assert among or few < 1
    for name, expected in by_top_k(x, labels, ks=(1, 3), metric=metric).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_the_scores_do_not_depend_on_the_guess(among, monkeypatch):
    monkeypatch.setattr(retrieval_scores, "_FEW", 2.0)
    monkeypatch.setattr(among_themselves, "_depth", lambda number, share: 1)
    x, labels = clusters(classes=60, per_class=5, noise=0.5)
    labels[100:] = np.arange(200) // 2 + 100
    x = rounded(x)
    found = evaluation.retrieval_of_queries(x, labels, ks=(1,))
    assert among[0][2].found.mean() < 0.9
    for name, expected in by_top_k(x, labels, ks=(1,)).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_the_scores_of_ties_are_those_of_the_definition(among, monkeypatch, seed):
    monkeypatch.setattr(retrieval_scores, "_FEW", 2.0)
    random = np.random.default_rng(seed)
    x = random.integers(0, 2 + 3 * seed, (100, 3)).astype(np.float32)
    labels = random.integers(0, 40, 100)
    found = evaluation.retrieval(x, labels, ks=(1, 2))
    expected, queries = oracles.retrieval(x, labels, (1, 2))
    assert among and found["queries"] == queries
    expected = {k: v for k, v in expected.items() if k.startswith(oracles.OF_NEIGHBOURS)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_what_float32_cannot_order_is_ordered_in_float64(among):
    x, labels = clusters(classes=60, per_class=5, noise=0.5)
    x += np.float32(300)
    found = evaluation.retrieval(x, labels, ks=(1,))
    expected, _ = oracles.retrieval(x, labels, (1,))
    assert among
    for name in ("precision_at_1", "r_precision", "map_at_r"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"metric": "cosine"}, {"whole_ranking": True}, {"ignore": (np.arange(300) % 2,) * 2}],
)
def test_other_searches_take_the_other_way(among, settings):
    x, labels = clusters(classes=60, per_class=5)
    evaluation.retrieval(x, labels, **settings)
    by_top_k(x, labels)
    assert not among


def test_it_pays_for_many_rows_and_few_neighbours():
    pays = among_themselves.pays
    assert pays(13_180, 21) and pays(60_000, 21)
    assert not (pays(1797, 21) or pays(60_000, 6001) or pays(10**7, 21))
