"""The stages of an encoder's backbone: which of them are frozen, and what comes after each.

A backbone may have a method `stages() -> {name: groups}`, which names its stages from the input to
the output, each with the top-level groups of parameters that belong to it. To freeze some of them,
it needs an attribute `frozen`, the number of its leading stages that are frozen: in training, too,
these compute what they do in evaluation. A backbone without the method is a single stage,
"backbone".
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jaxtyping import PyTree

from triplet_jax import errors
from triplet_jax.models import encoder_parts

WHOLE = "backbone"
"""The name for all stages of a backbone together."""


class Place(NamedTuple):
    """Where a parameter stands in an encoder."""

    after: int | None
    """The number of stages between the parameter's own and the head; None for the head itself."""
    frozen: bool
    """Whether training leaves the parameter as it is."""


def names(backbone: nn.Module) -> tuple[str, ...]:
    """The names of the backbone's stages, from the input to the output.

    >>> from triplet_jax import models
    >>> names(models.Conv4())
    ('backbone',)
    """
    return tuple(_groups(backbone))


def count_up_to(backbone: nn.Module, name: str) -> int:
    """The number of stages up to and including this one; all of them for "backbone".

    Raises:
      InputError: the backbone has no stage of this name.
    """
    known = names(backbone)
    if name == WHOLE:
        return len(known)
    errors.check_known("freeze", name, {WHOLE, *known})
    return known.index(name) + 1


def map_places(
    function: Callable[[Place], Any], encoder: encoder_parts.Applied, params: PyTree
) -> PyTree:
    """A tree like the encoder's parameters, with `function` of the place of each.

    Args:
      function: of the place of a parameter.
      encoder: an `Encoder`, a part of it, or `TwoTowers`.
      params: its parameters; they may be shapes and types.

    Raises:
      ValueError: a group of parameters belongs to no stage.
    """

    def of_leaf(path, _):
        keys = [entry.key for entry in path]
        tower = encoder
        if keys[0] in ("first", "second"):
            tower = getattr(encoder, keys.pop(0))
        if keys[0] != "backbone":
            return function(Place(None, frozen=False))
        groups = list(_groups(tower.backbone).values())
        stage = 0
        if groups != [None]:
            stage = next((i for i, group in enumerate(groups) if keys[1] in group), None)
            if stage is None:
                raise ValueError(f"{keys[1]!r} belongs to no stage of {type(tower.backbone)}")
        frozen = tower.frozen or stage < getattr(tower.backbone, "frozen", 0)
        return function(Place(len(groups) - 1 - stage, frozen))

    return jax.tree_util.tree_map_with_path(of_leaf, params)


def stop_frozen(encoder: encoder_parts.Applied, params: PyTree) -> PyTree:
    """The parameters; no gradient reaches those that are frozen, and none is computed for them."""
    frozen = map_places(lambda place: place.frozen, encoder, params)
    return jax.tree.map(lambda x, stop: jax.lax.stop_gradient(x) if stop else x, params, frozen)


def frozen_whole(encoder: nn.Module) -> nn.Module:
    """The encoder with its backbone, or those of both its towers, frozen as a whole."""
    if hasattr(encoder, "backbone"):
        return encoder.clone(frozen=True)
    return encoder.clone(first=frozen_whole(encoder.first), second=frozen_whole(encoder.second))


def _groups(backbone: nn.Module) -> dict[str, tuple[str, ...] | None]:
    """The groups of parameters of each stage; None for all."""
    return backbone.stages() if hasattr(backbone, "stages") else {WHOLE: None}
