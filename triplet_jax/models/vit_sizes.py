"""Vision transformers by name, in the sizes in which their weights are published."""

import functools
from collections.abc import Callable

from triplet_jax.models.published import CLIP, HALF, IMAGENET
from triplet_jax.models.vit import ViT

Made = Callable[..., ViT]

TINY = {"hidden": 192, "blocks": 12, "heads": 3, "mlp": 768}
SMALL = {"hidden": 384, "blocks": 12, "heads": 6, "mlp": 1536}
BASE = {"hidden": 768, "blocks": 12, "heads": 12, "mlp": 3072}
LARGE = {"hidden": 1024, "blocks": 24, "heads": 16, "mlp": 4096}
SO400M = {"hidden": 1152, "blocks": 27, "heads": 16, "mlp": 4304}
GIANT = {"hidden": 1536, "blocks": 40, "heads": 24, "mlp": 4096, "gated": True}

PLAIN = functools.partial(ViT, family="vit", expects=HALF._replace(crop_ratio=0.9))
# Its authors evaluate it on the middle 224 of 256 pixels; the positions are of 518 / 14 patches.
DINOV2 = functools.partial(
    ViT,
    family="dinov2",
    patch=14,
    grid=37,
    antialias=False,
    layer_scale=1e-5,
    expects=IMAGENET._replace(crop_ratio=224 / 256),
)
REGISTERS = functools.partial(DINOV2, registers=4, class_position=False, antialias=True)
DINOV3 = functools.partial(
    ViT,
    family="dinov3",
    grid=0,
    registers=4,
    biases="qv",
    layer_scale=1e-5,
    epsilon=1e-5,
    expects=IMAGENET,
)
SIGLIP2 = functools.partial(
    ViT,
    family="siglip",
    class_token=False,
    pool="map",
    activation="gelu_tanh",
    antialias=False,
    expects=HALF._replace(resample="bilinear"),
)
CLIP_VIT = functools.partial(
    ViT,
    family="clip",
    pre_norm=True,
    patch_bias=False,
    activation="quick_gelu",
    antialias=False,
    epsilon=1e-5,
    expects=CLIP,
)


def _sized(make: Made, size: dict[str, int], patch: int, pixels: int, **rest) -> Made:
    """Published for square images of so many pixels."""
    return functools.partial(make, **size, patch=patch, grid=pixels // patch, **rest)


VITS: dict[str, Made] = {
    "vit_tiny_16": _sized(PLAIN, TINY, 16, 224),
    "vit_small_16": _sized(PLAIN, SMALL, 16, 224),
    "vit_base_8": _sized(PLAIN, BASE, 8, 224),
    "vit_base_16": _sized(PLAIN, BASE, 16, 224),
    "vit_base_16_384": _sized(PLAIN, BASE, 16, 384),
    "vit_base_32": _sized(PLAIN, BASE, 32, 224),
    "vit_large_16": _sized(PLAIN, LARGE, 16, 224),
    "dinov2_small_14": functools.partial(DINOV2, **SMALL),
    "dinov2_base_14": functools.partial(DINOV2, **BASE),
    "dinov2_large_14": functools.partial(DINOV2, **LARGE),
    "dinov2_giant_14": functools.partial(DINOV2, **GIANT),
    "dinov2_small_14_reg4": functools.partial(REGISTERS, **SMALL),
    "dinov2_base_14_reg4": functools.partial(REGISTERS, **BASE),
    "dinov2_large_14_reg4": functools.partial(REGISTERS, **LARGE),
    "dinov2_giant_14_reg4": functools.partial(REGISTERS, **GIANT),
    "dinov3_small_16": functools.partial(DINOV3, **SMALL),
    "dinov3_small_plus_16": functools.partial(DINOV3, **SMALL, gated=True),
    "dinov3_base_16": functools.partial(DINOV3, **BASE),
    "dinov3_large_16": functools.partial(DINOV3, **LARGE),
    "dinov3_huge_plus_16": functools.partial(
        DINOV3, hidden=1280, blocks=32, heads=20, mlp=5120, gated=True
    ),
    "siglip2_base_16": _sized(SIGLIP2, BASE, 16, 224),
    "siglip2_base_16_256": _sized(SIGLIP2, BASE, 16, 256),
    "siglip2_base_16_384": _sized(SIGLIP2, BASE, 16, 384),
    "siglip2_base_16_512": _sized(SIGLIP2, BASE, 16, 512),
    "siglip2_base_32_256": _sized(SIGLIP2, BASE, 32, 256),
    "siglip2_large_16_256": _sized(SIGLIP2, LARGE, 16, 256),
    "siglip2_large_16_384": _sized(SIGLIP2, LARGE, 16, 384),
    "siglip2_large_16_512": _sized(SIGLIP2, LARGE, 16, 512),
    "siglip2_so400m_14": _sized(SIGLIP2, SO400M, 14, 224),
    "siglip2_so400m_14_384": _sized(SIGLIP2, SO400M, 14, 384),
    "siglip2_so400m_16_256": _sized(SIGLIP2, SO400M, 16, 256),
    "siglip2_so400m_16_384": _sized(SIGLIP2, SO400M, 16, 384),
    "siglip2_so400m_16_512": _sized(SIGLIP2, SO400M, 16, 512),
    "clip_base_32": _sized(CLIP_VIT, BASE, 32, 224, output=512),
    "clip_base_16": _sized(CLIP_VIT, BASE, 16, 224, output=512),
    "clip_large_14": _sized(CLIP_VIT, LARGE, 14, 224, output=768),
    "clip_large_14_336": _sized(CLIP_VIT, LARGE, 14, 336, output=768),
}
"""The vision transformers that `encoders.encoder` takes by name.

A name has the family, the size and the patch size, and the image size where positions are published
for other sizes than 224 pixels. `reg4` has four registers.
"""
