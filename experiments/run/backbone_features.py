"""What a run's backbone makes of images in evaluation, computed once and kept for later runs."""

import os
import pathlib

import flax.linen as nn
import ml_collections
import numpy as np
from jaxtyping import Float, PyTree

from triplet_jax.data import images
from triplet_jax.models import kept_features


def folder(config: ml_collections.FrozenConfigDict) -> pathlib.Path:
    """The folder that keeps features, of all runs."""
    if config.model.features_dir:
        return pathlib.Path(config.model.features_dir)
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache, "triplet_jax", "features")


def of(
    config: ml_collections.FrozenConfigDict,
    encoder: nn.Module,
    variables: PyTree,
    inputs: np.ndarray | images.Images,
) -> Float[np.ndarray, "inputs features"]:
    """The features of inputs.

    Args:
      config: of the run.
      encoder: its model.
      variables: of the backbone, or of the whole encoder.
      inputs: the images.
    """
    return kept_features.features(
        encoder, variables, inputs, folder=folder(config), batch=config.evaluate.batch
    )
