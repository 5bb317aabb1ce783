"""Maps in two dimensions: what they keep, and that they repeat."""

import sys
import types

import numpy as np
import pytest

from triplet_jax import errors
from triplet_jax.analysis import classes, geometry, projection


def test_pca_keeps_the_largest_variance_and_does_not_flip(blobs):
    x, _ = blobs
    points = projection.pca(x)
    shares = geometry.spectrum(x)
    variance = points.var(axis=0) / x.var(axis=0).sum()
    np.testing.assert_allclose(variance, shares[:2], rtol=1e-4)
    np.testing.assert_allclose(projection.pca(x[::-1]), points[::-1], atol=1e-4)


def test_tsne_separates_blobs_and_repeats(blobs):
    x, labels = blobs
    points = projection.tsne(x)
    np.testing.assert_array_equal(points, projection.tsne(x))
    assert classes.confusion(points, labels).to_numpy().diagonal().mean() > 0.8
    again = projection.tsne(x, start=points)
    correlation = np.corrcoef(points[:, 0], again[:, 0])[0, 1]
    assert correlation > 0.8  # a map that starts from another looks like it
    assert projection.tsne(x[:4]).shape == (4, 2)


def test_umap_keeps_classes_apart(blobs):
    pytest.importorskip("umap", reason="needs the extra umap")
    x, labels = blobs
    points = projection.umap(x)
    assert classes.confusion(points, labels).to_numpy().diagonal().mean() > 0.8


def test_without_umap_learn_the_message_names_the_extra(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[umap\]'"):
        projection.umap(blobs[0])


@pytest.mark.parametrize(("rows", "neighbours"), [(5, 4), (60, 15)])
def test_umap_has_its_usual_neighbours_where_there_are_so_many(rows, neighbours, monkeypatch):
    made = []

    class UMAP:
        def __init__(self, **settings):
            made.append(settings)

        def fit_transform(self, x):
            return x[:, :2].tolist()

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    x = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_array_equal(projection.umap(x, seed=3), x[:, :2])
    assert (made[0]["n_neighbors"], made[0]["random_state"]) == (neighbours, 3)
    np.testing.assert_array_equal(projection.umap(x[:4]), projection.pca(x[:4]))  # too few
    assert len(made) == 1
