"""Statistics of classes, their confusion and their clusters, against scikit-learn."""

import numpy as np
import pytest
import sklearn.cluster
import sklearn.metrics

from triplet_jax import errors, evaluation
from triplet_jax.analysis import classes


def test_statistics_of_classes_are_their_definitions(blobs):
    x, labels = blobs
    names = ("a", "b", "c", "d", "e")
    order = np.random.default_rng(1).permutation(60)
    table = classes.statistics(x[order], labels[order], names)
    assert list(table.name) == list(names)
    assert list(table.examples) == [12] * 5
    silhouettes = sklearn.metrics.silhouette_samples(x, labels)
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    nearest = labels[d.argmin(axis=1)]
    centres = np.stack([x[labels == c].mean(axis=0) for c in range(5)])
    for c, row in table.iterrows():
        of_class = labels == c
        np.testing.assert_allclose(row.silhouette, silhouettes[of_class].mean(), rtol=1e-5)
        np.testing.assert_allclose(row.precision_at_1, np.mean(nearest[of_class] == c), rtol=1e-5)
        spread = np.sqrt(np.mean(np.sum((x[of_class] - centres[c]) ** 2, axis=1)))
        np.testing.assert_allclose(row.spread, spread, rtol=1e-5)
        apart = np.linalg.norm(centres - centres[c], axis=1)
        apart[c] = np.inf
        assert row.nearest == names[apart.argmin()]
        np.testing.assert_allclose(row.to_nearest, apart.min(), rtol=1e-5)
    weighted = np.average(table.map_at_r, weights=table.examples)
    np.testing.assert_allclose(weighted, evaluation.retrieval(x, labels)["map_at_r"], rtol=1e-5)


def test_classes_of_one_example_have_a_silhouette_of_0_and_no_map():
    x = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = classes.statistics(x, np.array([4, 4, 4, 9, 9, 7]))
    assert list(table.name) == ["4", "7", "9"]
    alone = table[table.label == 7].iloc[0]
    assert alone.silhouette == 0
    assert np.isnan(alone.map_at_r)
    assert (classes.statistics(x, np.arange(6)).silhouette == 0).all()
    with pytest.raises(errors.InputError, match="only one class"):
        classes.statistics(x, np.zeros(6, int))


def test_confusion_counts_nearest_neighbours(blobs):
    x, labels = blobs
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    expected = sklearn.metrics.confusion_matrix(labels, labels[d.argmin(axis=1)], normalize="true")
    table = classes.confusion(x, labels)
    np.testing.assert_allclose(table, expected)
    pairs = classes.most_confused(table, pairs=3)
    assert set(pairs.iloc[0][["class", "other"]]) == {"0", "1"}
    np.testing.assert_allclose(pairs.share.iloc[0], (expected[0, 1] + expected[1, 0]) / 2)
    assert pairs.share.is_monotonic_decreasing


@pytest.mark.parametrize("method", classes.METHODS)
def test_clusters_and_their_agreement(blobs, method):
    x, labels = blobs
    found = classes.clusters(x, 5, method=method)
    assert set(found) == set(range(5))
    agreement = evaluation.agreement(labels, found)
    assert agreement["nmi"] == sklearn.metrics.normalized_mutual_info_score(labels, found) > 0.7
    assert agreement["ami"] == sklearn.metrics.adjusted_mutual_info_score(labels, found)
    with pytest.raises(errors.InputError, match=r"in \[1, 60\]"):
        classes.clusters(x, 61)
    with pytest.raises(errors.InputError, match="kmeans"):
        classes.clusters(x, 2, method="k-means")
    assert classes.clusters(x[:1], 1, method=method).tolist() == [0]


def test_the_tree_joins_the_nearest_classes_first(blobs):
    x, labels = blobs
    tree = classes.tree(x, labels)
    assert set(tree[0, :2]) == {0, 1}
    assert (np.diff(tree[:, 2]) >= 0).all()
