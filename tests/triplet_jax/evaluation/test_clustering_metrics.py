"""Clusters of embeddings and their agreement with the classes."""

from tests.support.clusters import clusters
from triplet_jax import evaluation


def test_clustering_finds_separated_classes():
    x, labels = clusters(noise=0.01)
    assert evaluation.clustering(x, labels) == {
        "nmi": 1.0,
        "ami": 1.0,
        "clusters": 8,
        "examples_not_finite": 0,
    }
