"""A convolution that XLA does not make slow on CPUs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from triplet_jax.xla import depthwise


def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width inputs new_channels"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    products: bool = True,
    **rest,
) -> Float[Array, "batch new_height new_width new_channels"]:
    """`jax.lax.conv_general_dilated`, to be set as `flax.linen.Conv.conv_general_dilated`.

    On a CPU, four kinds of layers are computed in another way than XLA does it:

    - A 1 x 1 kernel is a product of matrices. XLA computes the kernel's gradient as a convolution
      whose window is as large as the image, and copies the transposed images for it.
    - A depthwise kernel is applied by `depthwise`.
    - If a kernel is larger than the image or the result, XLA exchanges the two in the convolution
      or in its gradient, and has no fast code for that. Here it is a product of matrices, of
      patches and the kernel. A layer of 64 images of 2 x 2 x 512 takes 44 ms of CPU time with its
      gradients in place of 1,800, and one from 4 x 4 x 256 to 2 x 2 x 512 takes 21 in place of 307.
    - Images of one channel are cut into patches, too: XLA is made for rows of channels. The first
      layer of conv4 takes 0.6 of its time.

    Args:
      x: the images.
      kernel: the weights.
      strides: steps of the kernel, by axis.
      padding: "SAME" or "VALID", or rows and columns before and after the image, by axis.
      products: whether a 1 x 1 kernel becomes a product of matrices on a CPU. A step then takes
        less time and more memory: 3.7 GiB in place of 2.2 for ResNet-50.
      **rest: other arguments of `jax.lax.conv_general_dilated`.
    """
    size, window = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(size, window, strides, padding)
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **rest)
    pads = tuple((low, high) for low, high in padding)
    if products and _is_pointwise(kernel, pads, rest):
        x = x[:, :: strides[0], :: strides[1]]
        return _product(x, kernel[0, 0], rest)
    if _is_depthwise(x, kernel, rest):
        return depthwise.convolve(x, kernel[:, :, 0], tuple(strides), pads)
    new = [
        (s + low + high - w) // stride + 1
        for s, w, stride, (low, high) in zip(size, window, strides, pads, strict=True)
    ]
    if _is_of_patches(x, kernel, new) and not _has_holes(rest):
        padded = jnp.pad(x, [(0, 0), *pads, (0, 0)])
        patches = jnp.concatenate([*depthwise.shifted(padded, window, new, strides)], axis=3)
        return _product(patches, kernel.reshape(-1, kernel.shape[3]), rest)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **rest)


def _product(
    x: Float[Array, "..."], kernel: Float[Array, "..."], rest: dict
) -> Float[Array, "..."]:
    # By rows of a matrix, since the gradient of a product of more axes copies a transpose.
    rows = jnp.dot(x.reshape(-1, x.shape[3]), kernel, precision=rest.get("precision"))
    return rows.reshape(*x.shape[:3], -1)


def _is_of_patches(x: Float[Array, "..."], kernel: Float[Array, "..."], new: list[int]) -> bool:
    """Whether a product of patches and the kernel, for a result of a size, is faster on a CPU."""
    *window, channels, filters = kernel.shape
    if x.shape[3] != channels or min(new) < 1:
        return False
    if channels == 1 and window[0] * window[1] <= filters:  # the patches are the lesser array
        return True
    sizes = zip(x.shape[1:3], new, window, strict=True)
    return any(size > 1 and min(size, after) < w for size, after, w in sizes)


def _is_pointwise(
    kernel: Float[Array, "..."], padding: tuple[tuple[int, int], ...], rest: dict
) -> bool:
    """Whether the kernel meets one value of every channel at a time."""
    alone = kernel.shape[:2] == (1, 1) and set(padding) == {(0, 0)}
    return alone and rest.get("feature_group_count", 1) == 1 and not _has_holes(rest)


def _is_depthwise(x: Float[Array, "..."], kernel: Float[Array, "..."], rest: dict) -> bool:
    """Whether every channel has one kernel of its own."""
    channels = x.shape[-1]
    alone = rest.get("feature_group_count", 1) == channels > 1 and kernel.shape[3] == channels
    return alone and not _has_holes(rest)


def _has_holes(rest: dict) -> bool:
    """Whether there are zeros between the rows of the image or of the kernel."""
    return any(set(rest.get(f"{side}_dilation") or (1,)) != {1} for side in ("lhs", "rhs"))
