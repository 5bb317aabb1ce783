"""Alignment, uniformity, spectra and hubness against their definitions."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from triplet_jax import errors
from triplet_jax.analysis import geometry


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 6))
def test_alignment_and_uniformity_are_their_definitions(seed, n, dim):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = random.integers(3, size=n)
    squared = [
        (np.sum((x[i] - x[j]) ** 2), labels[i] == labels[j]) for i in range(n) for j in range(i)
    ]
    same = [d for d, is_same in squared if is_same]
    expected = np.mean(same) if same else np.nan
    np.testing.assert_allclose(geometry.alignment(x, labels), expected, rtol=1e-5, atol=1e-9)
    expected = np.log(np.mean([np.exp(-2 * d) for d, _ in squared]))
    np.testing.assert_allclose(geometry.uniformity(x, tile=7), expected, rtol=1e-6, atol=1e-9)


def test_uniformity_in_one_point_is_0_and_of_one_example_unknown():
    assert geometry.uniformity(np.ones((5, 3))) == 0
    assert np.isnan(geometry.uniformity(np.ones((1, 3))))


@pytest.mark.filterwarnings("error")
def test_uniformity_of_far_points_is_finite():
    assert geometry.uniformity([[0, 0], [0, 10]]) == -200
    np.testing.assert_allclose(geometry.uniformity([[0], [10], [100]], tile=1), np.log(1 / 3) - 200)
    assert geometry.uniformity([[0, 0], [0, 10]], t=0.0) == 0


def test_the_spectrum_is_that_of_the_covariance_and_its_rank_counts_dimensions():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6)) * np.array([5, 3, 1, 0.5, 0.1, 0.01])
    x = x.astype(np.float32).astype(np.float64)
    expected = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(geometry.spectrum(x), expected / expected.sum(), rtol=1e-8)
    line = np.outer(np.arange(10.0), [1, 2, 3])
    np.testing.assert_allclose(geometry.effective_rank(line), 1, atol=1e-6)
    cube = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T
    np.testing.assert_allclose(geometry.effective_rank(cube), 3)
    assert geometry.effective_rank(np.ones((4, 3))) == 1
    assert len(geometry.spectrum(random.normal(size=(3, 8)))) == 8


def test_hubness_is_the_skewness_of_occurrences(blobs):
    x, _ = blobs
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(d, np.inf)
    expected = np.bincount(np.argsort(d, axis=1)[:, :5].reshape(-1), minlength=60)
    np.testing.assert_array_equal(geometry.occurrences(x, neighbours=5), expected)
    np.testing.assert_allclose(geometry.hubness(x, neighbours=5), scipy.stats.skew(expected))
    ring = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
    assert abs(geometry.hubness(ring, neighbours=7)) == 0


@given(st.integers(0, 1000))
def test_cka_is_its_definition_and_ignores_rotation_and_scale(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(20, 4)), random.normal(size=(20, 7))
    centre = np.eye(20) - 1 / 20
    k, m = centre @ a @ a.T @ centre, centre @ b @ b.T @ centre
    expected = np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))
    np.testing.assert_allclose(geometry.cka(a, b), expected)
    rotation, _ = np.linalg.qr(random.normal(size=(4, 4)))
    np.testing.assert_allclose(geometry.cka(a, 3 * a @ rotation + 5), 1)
    assert np.isnan(geometry.cka(a, np.ones((20, 2))))
    with pytest.raises(errors.InputError, match="20 and 19"):
        geometry.cka(a, b[:19])
