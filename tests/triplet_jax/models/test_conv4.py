"""Conv4 on small and odd images."""

import jax
import jax.numpy as jnp

from triplet_jax import models


def test_conv4_takes_images_of_any_size(key):
    encoder = models.encoder("conv4", dim=4, width=4)
    for size in (2, 5, 8, 28):
        x = jnp.zeros((2, size, size, 1))
        found, _ = jax.jit(encoder.init_with_output)(key, x)
        assert found.shape == (2, 4)
