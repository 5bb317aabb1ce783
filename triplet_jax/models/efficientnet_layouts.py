"""The names by which the weights of EfficientNets are published."""

from collections.abc import Sequence

import numpy as np

from triplet_jax.models import published
from triplet_jax.models.published import Form, Layout, Path, Stored

POINTWISE = Form(lambda x: _matrix(x).T, lambda x: x.T[:, :, None, None])
"""A linear layer that is published as a 1 x 1 convolution."""


def layouts(blocks: Sequence[tuple[int, int, bool]], *, squeeze: bool) -> tuple[Layout, ...]:
    """The layouts of a backbone.

    Args:
      blocks: the stage of each block, its number within the stage, and whether it expands.
      squeeze: whether blocks have squeeze and excitation.
    """
    return (
        Layout(
            "timm",
            _whole("conv_stem", "bn1", "conv_head", "bn2") | _blocks(blocks, _of_timm, squeeze),
            (r"classifier\..*", r".*\.num_batches_tracked"),
        ),
        Layout(
            "torchvision",
            _whole("features.0.0", "features.0.1", *_head_of_torchvision(blocks))
            | _blocks(blocks, lambda *block: _of_torchvision(*block, squeeze), squeeze),
            (r"classifier\..*", r".*\.num_batches_tracked"),
        ),
        Layout(
            "efficientnet_pytorch",
            _whole("_conv_stem", "_bn0", "_conv_head", "_bn1")
            | _blocks(blocks, _numbered(blocks), squeeze),
            (r"_fc\..*", r".*\.num_batches_tracked"),
        ),
    )


def _of_timm(stage: int, block: int, expands: bool) -> dict[str, str]:
    """The published name of each layer of a block."""
    names = (
        {
            "expand": "conv_pw",
            "norm_expand": "bn1",
            "depthwise": "conv_dw",
            "norm_depthwise": "bn2",
            "project": "conv_pwl",
            "norm_project": "bn3",
        }
        if expands
        else {
            "depthwise": "conv_dw",
            "norm_depthwise": "bn1",
            "project": "conv_pw",
            "norm_project": "bn2",
        }
    )
    names |= {"reduce": "se.conv_reduce", "excite": "se.conv_expand"}
    return {ours: f"blocks.{stage}.{block}.{theirs}" for ours, theirs in names.items()}


def _of_torchvision(stage: int, block: int, expands: bool, squeeze: bool) -> dict[str, str]:
    parts = ["expand"] * expands + ["depthwise"] + ["squeeze"] * squeeze + ["project"]
    names = {}
    for i, part in enumerate(parts):
        place = f"features.{stage + 1}.{block}.block.{i}"
        if part == "squeeze":
            names |= {"reduce": f"{place}.fc1", "excite": f"{place}.fc2"}
        else:
            names |= {part: f"{place}.0", f"norm_{part}": f"{place}.1"}
    return names


def _head_of_torchvision(blocks: Sequence[tuple[int, int, bool]]) -> tuple[str, str]:
    after = blocks[-1][0] + 2
    return f"features.{after}.0", f"features.{after}.1"


def _numbered(blocks: Sequence[tuple[int, int, bool]]):
    """The names of efficientnet_pytorch, which numbers the blocks through all stages."""
    numbers = {(stage, block): number for number, (stage, block, _) in enumerate(blocks)}

    def names(stage: int, block: int, expands: bool) -> dict[str, str]:
        theirs = {
            "expand": "_expand_conv",
            "norm_expand": "_bn0",
            "depthwise": "_depthwise_conv",
            "norm_depthwise": "_bn1",
            "reduce": "_se_reduce",
            "excite": "_se_expand",
            "project": "_project_conv",
            "norm_project": "_bn2",
        }
        return {ours: f"_blocks.{numbers[stage, block]}.{name}" for ours, name in theirs.items()}

    return names


def _whole(stem: str, norm_stem: str, head: str, norm_head: str) -> dict[Path, Stored]:
    return (
        published.kernel(("conv_stem",), stem)
        | published.batch_norm(("norm_stem",), norm_stem)
        | published.kernel(("conv_head",), head)
        | published.batch_norm(("norm_head",), norm_head)
    )


def _blocks(blocks, names, squeeze: bool) -> dict[Path, Stored]:
    """The arrays of all blocks, by a function that names the layers of one."""
    arrays = {}
    for stage, block, expands in blocks:
        ours, theirs = f"blocks_{stage}_{block}", names(stage, block, expands)
        for part in ("expand", "depthwise", "project"):
            if part != "expand" or expands:
                arrays |= published.kernel((ours, part), theirs[part])
                arrays |= published.batch_norm((ours, f"norm_{part}"), theirs[f"norm_{part}"])
        for part in ("reduce", "excite") if squeeze else ():
            arrays |= published.kernel_and_bias((ours, part), theirs[part], POINTWISE)
    return arrays


def _matrix(kernel: np.ndarray) -> np.ndarray:
    """The matrix of a 1 x 1 kernel.

    Raises:
      ValueError: the kernel is larger.
    """
    if kernel.shape[2:] != (1, 1):
        raise ValueError(f"no 1 x 1 kernel: {kernel.shape}")
    return kernel[:, :, 0, 0]
