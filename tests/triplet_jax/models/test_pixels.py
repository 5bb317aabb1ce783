"""The values of images, as encoders see them."""

import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, models
from triplet_jax.models import pixels, published


def test_every_channel_is_normalised_by_its_own_statistics(key):
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype(np.float32)
    found = pixels.normalised(jnp.asarray(x), published.IMAGENET)
    for i, (mean, std) in enumerate(zip(*published.IMAGENET[:2], strict=True)):
        np.testing.assert_allclose(found[..., i], (x[..., i] - mean) / std, rtol=1e-5, atol=1e-6)


def test_a_grey_image_is_one_of_equal_channels():
    x = jnp.linspace(0, 1, 16).reshape(1, 4, 4, 1)
    found = pixels.normalised(x, published.IMAGENET)
    np.testing.assert_array_equal(
        found, pixels.normalised(jnp.repeat(x, 3, axis=-1), published.IMAGENET)
    )
    with pytest.raises(errors.InputError, match="images of 4 channels cannot be normalised"):
        pixels.normalised(jnp.zeros((1, 4, 4, 4)), published.IMAGENET)


def test_an_encoder_normalises_before_its_backbone(key):
    x = jnp.ones((2, 8, 8, 1)) * jnp.array([0.2, 0.7]).reshape(2, 1, 1, 1)
    plain = models.encoder("conv4", dim=4, width=4, depth=1)
    scaled = models.encoder("conv4", dim=4, width=4, depth=1, statistics=published.HALF)
    variables = scaled.init(key, x)
    assert variables["params"]["backbone"]["Conv_0"]["kernel"].shape[2] == 3
    np.testing.assert_allclose(
        scaled.apply(variables, x),
        plain.apply(variables, jnp.repeat(2 * x - 1, 3, axis=-1)),
        rtol=1e-5,
    )
