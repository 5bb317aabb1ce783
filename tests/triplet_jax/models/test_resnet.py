"""The size of residual networks."""

import jax
import jax.numpy as jnp
import pytest

from triplet_jax import models


@pytest.mark.parametrize(("name", "weights"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_resnets_have_the_published_number_of_weights(name, weights):
    """torchvision's, with a head of 1000."""
    encoder = models.encoder(name, dim=1000, normalize=False)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == weights
