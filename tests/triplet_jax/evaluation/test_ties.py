"""Scores do not depend on the order of rows, on their number type, or on rows that are bad."""

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from tests.support import oracles
from triplet_jax import errors, evaluation

KS = (1, 2, 13)  # the last as deep as any rank, so that all are compiled alike
METRICS = ["euclidean", "squared_euclidean", "cosine", "dot", "manhattan", "jaccard"]
METRICS += ["signal_to_noise"]
# One shape, so that the programs are compiled once: 14 rows, of which 5 may be queries.
ROWS = hnp.arrays(np.float32, (14, 3), elements=st.integers(0, 3))
LABELS = hnp.arrays(np.int64, 14, elements=st.integers(0, 5))


def near(found, expected):
    expected = {k: v for k, v in expected.items() if k.startswith(oracles.OF_NEIGHBOURS)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def clusters(n=80, classes=10, dim=4, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = random.normal(size=(classes, dim))[labels] + random.normal(size=(n, dim))
    return x.astype(np.float32), labels


@pytest.mark.parametrize("metric", METRICS)
@hypothesis.given(ROWS, LABELS, st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=12)
def test_ties_count_against_the_query_in_every_order(metric, x, labels, seed):
    expected, _ = oracles.retrieval(x, labels, KS, metric=metric)
    if metric in ("cosine", "jaccard", "signal_to_noise"):  # float64 rounds their equals apart
        x[:, 1:] = 0
        expected, _ = oracles.retrieval(x, labels, KS, metric=metric)
    order = np.random.default_rng(seed).permutation(14)
    first = evaluation.retrieval(x, labels, ks=KS, metric=metric)
    near(first, expected)
    assert evaluation.retrieval(x[order], labels[order], ks=KS, metric=metric) == pytest.approx(
        first, abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_are_almost_equal_count_in_their_order(seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(120, 3))
    # More of them than places count, so that the order of float32 may hide a positive.
    x[random.integers(0, 120, 40)] = x[0] + 1e-7 * random.normal(size=(40, 3))
    x, labels = x.astype(np.float32), random.integers(0, 60, 120)
    expected, _ = oracles.retrieval(x, labels, (1, 2))
    near(evaluation.retrieval(x, labels, ks=(1, 2)), expected)


@hypothesis.given(
    hnp.arrays(np.float32, (14, 3), elements=st.floats(-4, 4, width=16)), LABELS, st.integers(0, 99)
)
def test_any_numbers_and_references_apart_agree_with_float64(x, labels, seed):
    random = np.random.default_rng(seed)
    own = np.where(random.random(5) < 0.5, random.integers(0, 14, 5), -1)
    queries = np.where((own >= 0)[:, None], x[own], x[:5][::-1])
    asked = labels[own]
    expected, count = oracles.retrieval(queries, asked, KS, x, labels, own)
    found = evaluation.retrieval(
        queries, asked, references=x, reference_labels=labels, own=own, ks=KS
    )
    assert found["queries"] == count
    near(found, expected)


@pytest.mark.parametrize("kind", ["sorted", "mixed"])
def test_a_constant_embedding_scores_nothing(kind):
    labels = np.repeat(np.arange(10), 10)
    if kind == "mixed":
        labels = np.random.default_rng(0).permutation(labels)
    found = evaluation.retrieval(np.full((100, 8), 0.3, np.float32), labels)
    assert found["map_at_r"] == found["r_precision"] == found["recall_at_8"] == 0
    few = evaluation.few_shot(np.full((100, 8), 0.3), labels, ways=5, shots=1, episodes=9, seed=0)
    assert few["accuracy"] == 0


def test_equal_rows_stay_ties_where_a_product_would_round_them_apart():
    # 0.1 is no sum of powers of two, and 300 rows are over several tiles and their remainders.
    random = np.random.default_rng(0)
    x = 0.1 * random.integers(0, 2, (300, 48)).astype(np.float32)[random.integers(0, 30, 300)]
    labels = random.integers(0, 30, 300)
    expected, _ = oracles.retrieval(x[:, :48] * 10, labels, KS)
    near(evaluation.retrieval(x, labels, ks=KS), expected)


def test_neighbours_that_float32_products_cannot_order_are_ordered():
    # Around a far centre of mass, at distances below the rounding of a product.
    x = np.array([[1e3, 0], [-1e3, 0], [0, 1e3], [0, 1e-3], [0, 3e-3], [0, 6e-3]], np.float32)
    labels = np.array([0, 1, 2, 3, 3, 4])
    found = evaluation.retrieval_of_queries(x, labels)["precision_at_1"]
    np.testing.assert_array_equal(found[3:5], [1, 1])
    distance, position = evaluation.nearest(x, None, neighbours=1)
    assert position[3:, 0].tolist() == [4, 3, 4]
    np.testing.assert_allclose(distance[3:, 0], [2e-3, 2e-3, 3e-3], rtol=1e-4)


# -- rows that are not finite


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_bad_row_scores_nothing_and_changes_no_other(bad):
    x, labels = clusters()
    sound = evaluation.retrieval_of_queries(x, labels)
    x[7, 2] = bad
    expected, _ = oracles.retrieval(x, labels, (1, 2, 4, 8))
    found = evaluation.retrieval(x, labels)
    near(found, expected)
    assert (found["queries_not_finite"], found["references_not_finite"]) == (1, 1)
    of_query = evaluation.retrieval_of_queries(x, labels)
    assert all(score[7] == 0 for score in of_query.values())
    other_classes = labels != labels[7]
    for name in ("precision_at_1", "map_at_r"):
        assert (of_query[name] >= sound[name])[other_classes].all()


@hypothesis.given(ROWS, LABELS, hnp.arrays(bool, 14))
def test_bad_rows_agree_with_the_definition(x, labels, bad):
    x[bad, 0] = np.nan
    expected, _ = oracles.retrieval(x, labels, KS)
    near(evaluation.retrieval(x, labels, ks=KS), expected)


def test_other_measures_count_bad_rows():
    x, labels = clusters()
    bad = x.copy()
    bad[3] = np.nan
    rest = np.arange(80) != 3
    expected = evaluation.verification(x[rest], labels[rest]) | {"examples_not_finite": 1}
    assert evaluation.verification(bad, labels) == expected
    expected = evaluation.clustering(x[rest], labels[rest]) | {"examples_not_finite": 1}
    assert evaluation.clustering(bad, labels) == expected
    settings = {"ways": 10, "shots": 1, "queries": 7, "episodes": 50, "seed": 0}
    clean, found = (evaluation.few_shot(each, labels, **settings) for each in (x, bad))
    assert found["examples_not_finite"] == 1
    # It is a shot or a query in every episode.
    assert clean["accuracy"] - 0.1 < found["accuracy"] < clean["accuracy"] + 0.02
    with pytest.raises(errors.InputError, match="1 of 80 rows of queries have NaN"):
        evaluation.nearest(bad, None, neighbours=2)


# -- number types and labels


@pytest.mark.parametrize("kind", ["f2", ">f4", "f8", ml_dtypes.bfloat16, "i8", "list", "jax"])
def test_every_number_type_scores_as_float32(kind):
    x, labels = clusters(dim=40)
    x = np.round(8 * x)
    given = {"list": x.tolist, "jax": lambda: jnp.asarray(x, jnp.bfloat16)}.get(
        kind, lambda: x.astype(kind)
    )()
    x = np.asarray(given).astype(np.float32)
    few = {"ways": 5, "shots": 1, "episodes": 9, "seed": 0}
    for measure, more in (
        (evaluation.retrieval, {}),
        (evaluation.few_shot, few),
        (evaluation.verification, {}),
        (evaluation.clustering, {}),
    ):
        assert measure(given, labels, **more) == measure(x, labels, **more)
    expected = evaluation.nearest(x, None, neighbours=3)
    for a, b in zip(evaluation.nearest(given, None, neighbours=3), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_float16_of_many_values_does_not_overflow():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 10)
    x = random.normal(size=(10, 659))[labels] * 20 + 20 * random.normal(size=(100, 659))
    settings = {"ways": 10, "shots": 1, "episodes": 20, "seed": 0}
    found = evaluation.few_shot(x.astype(np.float16), labels, **settings)["accuracy"]
    assert found == pytest.approx(evaluation.few_shot(x, labels, **settings)["accuracy"], abs=0.01)
    assert found > 0.9


@pytest.mark.parametrize(
    "labels", [np.eye(10)[np.arange(80) % 10], (np.arange(80) % 10)[:, None], np.arange(79)]
)
@pytest.mark.parametrize(
    "measure",
    [
        evaluation.retrieval,
        evaluation.retrieval_of_queries,
        evaluation.verification,
        evaluation.clustering,
        lambda x, labels: evaluation.few_shot(x, labels, ways=2, shots=1, episodes=2, seed=0),
    ],
)
def test_labels_of_another_shape_are_refused(measure, labels):
    x, _ = clusters()
    with pytest.raises(errors.InputError, match=r"labels have the shape .* embeddings \(80, 4\)"):
        measure(x, labels)


def test_strings_are_labels_of_every_measure():
    x, labels = clusters()
    names = [f"class {c}" for c in labels]
    few = {"ways": 5, "shots": 1, "episodes": 9, "seed": 0}
    for measure, more in (
        (evaluation.retrieval, {}),
        (evaluation.few_shot, few),
        (evaluation.verification, {}),
        (evaluation.clustering, {}),
    ):
        assert measure(x, names, **more) == measure(x, labels, **more)
    with pytest.raises(errors.InputError, match="both must be strings"):
        evaluation.retrieval(x, labels, references=x, reference_labels=names)


def test_labels_of_unlike_types_are_compared_as_numbers():
    large = np.array([2**63 + 1, 2**63 + 2], np.uint64)  # equal as floats
    found = evaluation.retrieval_of_queries(
        np.zeros((2, 1)), large, references=np.zeros((2, 1)), reference_labels=np.array([-1, 5])
    )
    assert np.isnan(found["map_at_r"]).all()


# -- neighbours


def test_distances_are_exact_and_the_same_for_every_number_of_neighbours():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 16)).astype(np.float32) + 50
    x[7] = x[3] + 1e-5
    x[9] = x[3]
    for metric in ("euclidean", "cosine"):
        most, at = evaluation.nearest(x, x, neighbours=20, metric=metric)
        assert (most >= 0).all() and (most[np.arange(40) != 9, 0] < 1e-12).all()
        found, position = evaluation.nearest(x, x, neighbours=1, metric=metric)
        np.testing.assert_array_equal(found, most[:, :1])
        np.testing.assert_array_equal(position, at[:, :1])
    found, position = evaluation.nearest(x[3:4], x, neighbours=3)
    assert position[0].tolist() == [3, 9, 7]
    exact = np.linalg.norm(x[3].astype(float) - x[7].astype(float))
    np.testing.assert_allclose(found[0], [0, 0, exact], rtol=1e-6)


def test_queries_that_stand_among_the_references_are_left_out():
    x, labels = clusters()
    some = np.array([5, 70, 33])
    distance, position = evaluation.nearest(x[some], x, neighbours=79, own=some)
    everything = evaluation.nearest(x, None, neighbours=79)
    np.testing.assert_array_equal(position, everything[1][some])
    assert (position != some[:, None]).all()
    found = evaluation.retrieval_of_queries(
        x[some], labels[some], references=x, reference_labels=labels, own=some.tolist()
    )
    expected = evaluation.retrieval_of_queries(x, labels)
    for name, score in found.items():
        np.testing.assert_allclose(score, expected[name][some], rtol=1e-6)


@pytest.mark.parametrize(
    "own, message",
    [
        ([0, 80], r"own must be whole numbers in \[-1, 79\]"),
        ([0, -2], r"own must be whole numbers in \[-1, 79\]"),
        ([0.0, 1.0], "own must be whole numbers"),
        ([0], r"own have the shape \(1,\), and queries \(2, 4\)"),
    ],
)
def test_other_positions_are_refused(own, message):
    x, _ = clusters()
    with pytest.raises(errors.InputError, match=message):
        evaluation.nearest(x[:2], x, neighbours=1, own=own)
    with pytest.raises(errors.InputError, match="own is given together with references"):
        evaluation.nearest(x, None, neighbours=1, own=np.arange(80))


# -- clusters


@pytest.mark.parametrize("labels", [np.arange(6), np.zeros(6, int)])
def test_agreement_that_tells_nothing_is_left_out(labels):
    x = np.random.default_rng(0).normal(size=(6, 3))
    found = evaluation.clustering(x, labels)
    assert found == {"clusters": len(set(labels.tolist())), "examples_not_finite": 0}
    assert evaluation.agreement([0, 0, 1, 1], [0, 1, 2, 3]) == {}
    assert evaluation.agreement([0, 0, 1, 1], [5, 5, 3, 3]) == {"nmi": 1, "ami": 1}


def test_clusters_of_equal_rows_are_no_warning():
    found = evaluation.clustering(np.full((12, 3), 0.3), np.arange(12) % 4)
    assert found["nmi"] == 0


@pytest.mark.parametrize("whole", [False, True])
def test_signal_to_noise_ranks_by_variances(whole):
    # From (0, 2), at a distance of 4 the own class, and at 1/16 the other.
    found = evaluation.retrieval(
        [[0.0, 2.0]],
        ["own"],
        references=[[0.0, 6.0], [0.0, 2.5]],
        reference_labels=["own", "other"],
        metric="signal_to_noise",
        whole_ranking=whole,
    )
    assert found["precision_at_1"] == 0


@pytest.mark.parametrize("metric", ["minkowski", "mahalanobis"])
def test_a_metric_with_parameters_ranks_nothing(metric):
    x, message = [[0.0], [1.0]], f"metric='{metric}' takes parameters"
    with pytest.raises(errors.InputError, match=message):
        evaluation.retrieval(x, [0, 0], metric=metric)
    with pytest.raises(errors.InputError, match=message):
        evaluation.nearest(x, x, metric=metric, neighbours=1)


def test_queries_without_any_reference_score_nothing():
    none = {"references": np.zeros((0, 1)), "reference_labels": np.zeros(0, int)}
    found = evaluation.retrieval([[0.0]], [0], **none)
    assert found["queries_without_positives"] == 1
    assert np.isnan(found["precision_at_1"])
