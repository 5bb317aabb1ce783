"""A residual network of two blocks, with published weights, to fine-tune in a few seconds."""

import pathlib
from collections.abc import Sequence

import jax

from tests.support import families, tiny_backbone
from triplet_jax import models
from triplet_jax.models import published

PATH = f"{__name__}:Residual"


class Residual(models.ResNet):
    """Two stages of one block each."""

    stage_sizes: Sequence[int] = (1, 1)
    bottleneck: bool = False
    width: int = 4


def write(path: pathlib.Path) -> pathlib.Path:
    """Writes random weights of it, in which no block is the identity."""
    variables = families.random_variables(Residual(), jax.random.key(0))
    return tiny_backbone.write(path, published.published(variables, *Residual().layouts()))
