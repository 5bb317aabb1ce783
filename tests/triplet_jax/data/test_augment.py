import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from triplet_jax.data import augment


@pytest.fixture
def image():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(9, 9, 2)), jnp.float32)


def test_an_affine_map_of_nothing_is_the_identity(key, image):
    np.testing.assert_allclose(augment.affine(key, image), image, atol=1e-6)


def test_affine_samples_as_scipy_does(key, image):
    found = augment.affine(key, image, shift=2.0, rotate=30.0, scale=0.2, shear=10.0)
    # The same draw, from the documented order of the keys.
    keys = jax.random.split(key, 4)
    offset = np.asarray(jax.random.uniform(keys[0], (2,), minval=-2.0, maxval=2.0))
    angle = np.deg2rad(jax.random.uniform(keys[1], minval=-30.0, maxval=30.0))
    size = np.exp(jax.random.uniform(keys[2], minval=-0.2, maxval=0.2))
    slant = np.tan(np.deg2rad(jax.random.uniform(keys[3], minval=-10.0, maxval=10.0)))
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = np.asarray(rotation) @ [[1, slant], [0, 1]] / size
    for channel in range(2):
        expected = scipy.ndimage.affine_transform(
            image[..., channel], matrix, [4, 4] + offset - matrix @ [4, 4], order=1, mode="nearest"
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


def test_a_rotation_keeps_the_middle(key):
    image = jnp.zeros((9, 9, 1)).at[4, 4].set(1.0)
    assert augment.affine(key, image, rotate=90.0)[4, 4, 0] == pytest.approx(1, abs=1e-5)


def test_a_crop_moves_by_whole_pixels_and_fills_with_the_border(image):
    seen = set()
    for seed in range(60):
        moved = augment.crop(jax.random.key(seed), image, pixels=1)
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        places = [(r, c) for r in range(3) for c in range(3)]
        match = [p for p in places if np.array_equal(moved, padded[p[0] :, p[1] :][:9, :9])]
        assert match
        seen.update(match)
    assert len(seen) == 9


def test_a_flip_happens_half_of_the_time(image):
    keys = jax.random.split(jax.random.key(0), 400)
    flipped = [bool(jnp.array_equal(x, image[:, ::-1])) for x in _each(augment.flip, keys, image)]
    same = [bool(jnp.array_equal(x, image)) for x in _each(augment.flip, keys, image)]
    assert sum(flipped) + sum(same) == 400
    assert 150 < sum(flipped) < 250


def test_quarter_turns_are_all_drawn(image):
    keys = jax.random.split(jax.random.key(0), 200)
    counts = [0] * 4
    for turned in _each(augment.quarter_turn, keys, image):
        counts[[np.array_equal(turned, np.rot90(image, k)) for k in range(4)].index(True)] += 1
    assert sum(counts) == 200
    assert min(counts) > 25


def _each(function, keys, image):
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, image)))(keys))


def test_noise_has_its_deviation(key):
    noisy = augment.noise(key, jnp.zeros((100, 100, 1)), std=0.3)
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.05)


def test_a_chain_of_nothing_changes_nothing(key, image):
    assert augment.chain()(key, image) is image


def test_a_chain_turns_by_the_key_of_its_step(image):
    chain = augment.chain(crop_pixels=1, turn=True)
    for key in jax.random.split(jax.random.key(2), 4):
        cropped = augment.crop(jax.random.fold_in(key, 0), image, pixels=1)
        expected = augment.quarter_turn(jax.random.fold_in(key, 1), cropped)
        np.testing.assert_array_equal(chain(key, image), expected)


def test_a_chain_draws_for_every_step_anew(key, image):
    both = augment.chain(crop_pixels=2, noise_std=0.1)(key, image)
    cropped = augment.crop(jax.random.fold_in(key, 0), image, pixels=2)
    expected = augment.noise(jax.random.fold_in(key, 1), cropped, std=0.1)
    np.testing.assert_array_equal(both, expected)
