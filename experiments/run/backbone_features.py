"""What a run's backbone makes of images in evaluation, computed once and kept for later runs."""

import pathlib
from collections.abc import Callable

import flax.linen as nn
import ml_collections
import numpy as np
from jaxtyping import Float, PyTree

from experiments.config import caches, encoders
from triplet_jax import data
from triplet_jax.models import kept_features


def folder(config: ml_collections.FrozenConfigDict) -> pathlib.Path:
    """The folder that keeps features, of all runs."""
    if config.model.features_dir:
        return pathlib.Path(config.model.features_dir)
    return caches.folder("features")


class BackboneFeatures:
    """The features of a run's examples by its backbone before training, or by a frozen one.

    The first call gives the weights, which all others share: to read them and to compile the
    backbone takes seconds. If the head alone is trained, all examples are read at once.

    Args:
      config: of the run.
      encoder: its model.
      everything: all its examples.
    """

    def __init__(
        self, config: ml_collections.FrozenConfigDict, encoder: nn.Module, everything: data.Dataset
    ):
        self._config, self._encoder, self._everything = config, encoder, everything
        self._features: Callable | None = None
        self._of_all: np.ndarray | None = None

    def of_all(self, variables: PyTree) -> Float[np.ndarray, "examples features"]:
        """The features of all examples.

        Args:
          variables: of the backbone, or of the whole encoder.
        """
        if self._of_all is None:
            self._of_all = self._made(variables)(self._everything.inputs)
        return self._of_all

    def of_split(self, variables: PyTree, split: str) -> Float[np.ndarray, "examples features"]:
        """The features of a split. `variables` are as in `of_all`."""
        places = np.flatnonzero(self._everything.split == split)
        if encoders.keeps_features(self._config):
            return self.of_all(variables)[places]
        return self._made(variables)(self._everything.inputs[places])

    def _made(self, variables):
        if self._features is None:
            self._features = kept_features.make_features(
                self._encoder,
                variables,
                folder=folder(self._config),
                batch=self._config.evaluate.batch,
            )
        return self._features
