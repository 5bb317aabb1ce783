"""The head on principal axes: what it does to the features that it was made from."""

import numpy as np
import pytest

from triplet_jax.models import principal


def _features(examples=200, size=6):
    draw = np.random.default_rng(0)
    mixing = draw.normal(size=(size, size)) * np.geomspace(8, 0.1, size)[:, None]
    return (draw.normal(size=(examples, size)) @ mixing + 3.0).astype(np.float32)


def _applied(head, features):
    return features.astype(np.float64) @ head["kernel"] + head["bias"]


@pytest.mark.parametrize("dim", [2, 6])
def test_values_are_centred_uncorrelated_and_half_whitened(dim):
    features = _features()
    found = _applied(principal.head(features, dim), features)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    covariance = np.cov(found.T)
    _, deviations, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    # The variance of a value is the deviation of its axis, up to one factor for all.
    ratios = np.diag(covariance) / deviations[:dim]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-3)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)


def test_the_weights_are_as_large_as_those_of_a_random_head():
    head = principal.head(_features(), 4)
    assert np.sqrt(np.mean(head["kernel"] ** 2)) == pytest.approx(1 / np.sqrt(6), rel=1e-5)


@pytest.mark.parametrize("examples", [1, 3])
def test_random_axes_fill_what_few_examples_leave_open(examples):
    features = _features(examples)
    head = principal.head(features, 5)
    assert head["kernel"].shape == (6, 5) and np.isfinite(head["kernel"]).all()
    # What the examples do not tell apart is the same for all of them.
    np.testing.assert_allclose(_applied(head, features)[:, examples - 1 :], 0, atol=1e-4)
    assert np.linalg.matrix_rank(head["kernel"]) == 5


def test_features_that_are_all_equal_give_a_finite_head():
    head = principal.head(np.ones((4, 3), np.float32), 2)
    assert np.isfinite(head["kernel"]).all() and np.linalg.matrix_rank(head["kernel"]) == 2
