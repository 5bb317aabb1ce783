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

    On a CPU, three kinds of layers are computed in another way than XLA does it:

    - A 1 x 1 kernel is a product of matrices. XLA takes the kernel's gradient for a convolution by
      a window as large as the image, and copies the transposed images for it.
    - A depthwise kernel is that of `depthwise`.
    - If a kernel is larger than the image, XLA exchanges the two, and has no fast code for that: a
      layer of 64 images of 2 x 2 x 512, with its gradient, took 7 s in place of 0.5. Such an image
      is padded here by more than was asked for, and the surplus of the result is cut off.

    Args:
      x: the images.
      kernel: the weights.
      strides: steps of the kernel, by axis.
      padding: "SAME" or "VALID", or rows and columns before and after the image, by axis.
      products: whether a 1 x 1 kernel becomes a product of matrices on a CPU. A step then takes
        less time and more memory: of ResNet-50 3.7 GiB in place of 2.2.
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
        # By rows of a matrix, since the gradient of a product of more axes copies a transpose.
        rows = jnp.dot(x.reshape(-1, x.shape[3]), kernel[0, 0], precision=rest.get("precision"))
        return rows.reshape(*x.shape[:3], -1)
    if _is_depthwise(x, kernel, rest):
        return depthwise.convolve(x, kernel[:, :, 0], tuple(strides), pads)
    missing = [w - s if 1 < s < w else 0 for s, w in zip(size, window, strict=True)]
    if not any(missing) or tuple(strides) != (1, 1):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **rest)
    padded = [(low, high + more) for (low, high), more in zip(padding, missing, strict=True)]
    # Without the barriers, XLA would take the padding back into the convolution.
    x = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), *padded, (0, 0)]))
    y = jax.lax.conv_general_dilated(x, kernel, strides, [(0, 0), (0, 0)], **rest)
    height, width = (n - more for n, more in zip(y.shape[1:3], missing, strict=True))
    return jax.lax.optimization_barrier(y)[:, :height, :width]


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
