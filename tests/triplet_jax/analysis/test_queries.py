"""Two runs side by side, query by query."""

import numpy as np
import pandas as pd
import pytest

from triplet_jax import errors, evaluation
from triplet_jax.analysis import queries


def test_comparing_two_runs_orders_queries_by_their_change(blobs):
    x, labels = blobs
    worse = np.random.default_rng(0).normal(size=x.shape)
    table = queries.changes(worse, x, labels)
    assert table.change.is_monotonic_increasing
    assert sorted(table.index) == list(range(60))
    expected = evaluation.retrieval_of_queries(x, labels)["map_at_r"]
    np.testing.assert_allclose(table.after, expected[table.index])
    np.testing.assert_array_equal(table.label, labels[table.index])
    with pytest.raises(errors.InputError, match="60 labels"):
        queries.changes(x, x[:5], labels)
    with pytest.raises(errors.InputError, match="map_at_r"):
        queries.changes(x, x, labels, score="map")


@pytest.mark.parametrize("index", [range(59, -1, -1), range(100, 160)])
def test_labels_are_taken_by_their_order_and_not_by_an_index(blobs, index):
    x, labels = blobs
    found = queries.changes(x[::-1], x, pd.Series(labels, index=index))
    pd.testing.assert_frame_equal(found, queries.changes(x[::-1], x, labels))
