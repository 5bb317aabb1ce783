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
    **rest,
) -> Float[Array, "batch new_height new_width new_channels"]:
    """`jax.lax.conv_general_dilated`, to be set as `flax.linen.Conv.conv_general_dilated`.

    If a kernel is larger than the image, XLA exchanges the two, and has no fast code for that on a
    CPU: a layer of 64 images of 2 x 2 x 512, with its gradient, took 7 s in place of 0.5. Such an
    image is padded here by more than was asked for, and the surplus of the result is cut off. A
    depthwise convolution on a CPU is that of `depthwise`.

    Args:
      x: the images.
      kernel: the weights.
      strides: steps of the kernel, by axis.
      padding: "SAME" or "VALID", or rows and columns before and after the image, by axis.
      **rest: other arguments of `jax.lax.conv_general_dilated`.
    """
    size, window = x.shape[1:3], kernel.shape[:2]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(size, window, strides, padding)
    if _is_depthwise(x, kernel, rest) and jax.default_backend() == "cpu":
        pads = tuple((low, high) for low, high in padding)
        return depthwise.convolve(x, kernel[:, :, 0], tuple(strides), pads)
    missing = [w - s if 1 < s < w else 0 for s, w in zip(size, window, strict=True)]
    if not any(missing) or tuple(strides) != (1, 1) or jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **rest)
    padded = [(low, high + more) for (low, high), more in zip(padding, missing, strict=True)]
    # Without the barriers, XLA would take the padding back into the convolution.
    x = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), *padded, (0, 0)]))
    y = jax.lax.conv_general_dilated(x, kernel, strides, [(0, 0), (0, 0)], **rest)
    height, width = (n - more for n, more in zip(y.shape[1:3], missing, strict=True))
    return jax.lax.optimization_barrier(y)[:, :height, :width]


def _is_depthwise(x: Float[Array, "..."], kernel: Float[Array, "..."], rest: dict) -> bool:
    """Whether every channel has one kernel of its own, without holes."""
    channels = x.shape[-1]
    dense = all(set(rest.get(f"{side}_dilation") or (1,)) == {1} for side in ("lhs", "rhs"))
    alone = rest.get("feature_group_count", 1) == channels > 1 and kernel.shape[3] == channels
    return alone and dense
