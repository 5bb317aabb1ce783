"""Data that live on the device, where batches are cut from them."""

import jax.numpy as jnp
from jaxtyping import Array

from triplet_jax.data import images
from triplet_jax.data.dataset import Dataset


def resident(dataset: Dataset) -> tuple[Array, Array]:
    """Puts a whole data set on the device: the decoded inputs, and the labels."""
    return jnp.asarray(images.load(dataset.inputs)), jnp.asarray(dataset.labels)
