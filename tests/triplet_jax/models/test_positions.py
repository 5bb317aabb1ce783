"""Positions and patches of another size, and rotations, against what defines them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from triplet_jax.models import positions


def test_resampled_positions_of_a_plane_stay_on_it():
    """Bicubic interpolation keeps a linear function, away from the ends of a row."""
    rows, columns = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    learned = jnp.asarray((rows + 2 * columns).reshape(-1, 1))
    found = positions.resample(learned, (8, 8), (16, 16), antialias=True).reshape(16, 16)
    at = np.arange(16) / 2 - 0.25
    np.testing.assert_allclose(found[4:-4, 4:-4], (at[:, None] + 2 * at)[4:-4, 4:-4], rtol=1e-5)
    for antialias in (True, False):
        weights = positions.bicubic(37, 16, antialias=antialias)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(positions.bicubic(5, 5, antialias=antialias), np.eye(5))


def test_a_resized_patch_has_the_same_embedding(key):
    patch, kernel = jax.random.normal(key, (4, 4, 3)), jax.random.normal(key, (4, 4, 3, 5))
    larger = positions.bicubic(4, 8, antialias=True)
    enlarged = jnp.einsum("ah,bw,hwc->abc", larger, larger, patch)
    resized = positions.resize_patches(kernel, 8)
    np.testing.assert_allclose(
        jnp.einsum("hwc,hwcd->d", enlarged, resized),
        jnp.einsum("hwc,hwcd->d", patch, kernel),
        rtol=1e-4,
        atol=1e-4,
    )


def test_rotations_depend_on_how_far_patches_are_apart(key):
    """A query at one place and a key at another have a product of the difference alone."""
    query, other = jax.random.normal(key, (2, 8))
    cosines, sines = positions.rotations((4, 4), 8)
    turn = functools.partial(positions.rotate, cosines=cosines, sines=sines)
    q, k = (turn(jnp.tile(x, (1, 17, 1, 1))) for x in (query, other))
    np.testing.assert_array_equal(q[0, 0, 0], query)  # a token before the patches has no place
    products = jnp.einsum("qd,kd->qk", q[0, 1:, 0], k[0, 1:, 0])
    products = np.asarray(products).reshape(4, 4, 4, 4)
    np.testing.assert_allclose(products[0, 0, 1, 2], products[2, 1, 3, 3], rtol=1e-4)
    assert abs(products[0, 0, 1, 2] - products[0, 0, 2, 1]) > 1e-2
