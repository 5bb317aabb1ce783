"""Every backbone that has a name, with few and narrow layers of the same kinds."""

import flax.linen as nn

from triplet_jax.models import ConvNeXt, EfficientNet, ResNet, encoders, vit
from triplet_jax.models.efficientnet import Stage

SIDE = 32
PATCH = 8
_VIT = {"hidden": 24, "blocks": 2, "heads": 2, "patch": PATCH}


def small(name: str) -> nn.Module:
    """The backbone of a name as `encoders.BACKBONES` makes it, but for its sizes."""
    make = encoders.BACKBONES[name]
    made = make()
    if isinstance(made, vit.ViT):
        sizes = _VIT | {"mlp": 64 if made.gated else 96, "grid": SIDE // PATCH * bool(made.grid)}
        return make(**sizes, output=8 * bool(made.output))
    if isinstance(made, ConvNeXt):
        return make(depths=(1, 1, 2, 1), widths=(8, 8, 16, 16))
    if isinstance(made, EfficientNet):
        return make(
            stage_sizes=(Stage(1, 8, 1, 3, 1), Stage(2, 16, 2, 5, 4)), stem_width=8, features=24
        )
    if isinstance(made, ResNet):
        return make(width=8, stem="7x7")
    return make(width=8)


def input_shape(name: str) -> tuple[int, ...]:
    """The shape of one input."""
    return (7,) if name == "mlp" else (SIDE, SIDE, 3)


def kinds() -> dict[str, nn.Module]:
    """The small backbones that differ, each by the first name that it stands for."""
    found: dict[str, nn.Module] = {}
    for name in encoders.BACKBONES:
        made = small(name)
        if made not in found.values():
            found[name] = made
    return found
