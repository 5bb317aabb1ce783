"""A depthwise convolution that is fast on CPUs, forward and backward.

XLA computes a convolution in groups on a CPU channel by channel: a depthwise 3 x 3 takes longer
than a dense one, and its gradient far longer. Here each position of the kernel gives a product of
the shifted image and one row of weights, which is an elementwise operation that XLA vectorises.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_ROWS = 8
"""The most rows of an image whose products are summed at a time for the gradient of a kernel."""
_LARGE, _MOST_APART = 2**18, 25
"""Positions of a kernel are compiled apart for gradients of this size, and at most so many."""

Padding = Sequence[tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels"],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "batch new_height new_width channels"]:
    """Convolves each channel with a kernel of its own.

        y[n, h, w, c] = sum over i, j of x[n, s h + i - low, s w + j - low, c] kernel[i, j, c]

    It is `jax.lax.conv_general_dilated` with `feature_group_count` equal to the channels. Its sums
    are in float32 at least.

    >>> y = convolve(jnp.ones((1, 3, 3, 1)), jnp.ones((3, 3, 1)), (1, 1), ((1, 1), (1, 1)))
    >>> print(y[0, :, :, 0])
    [[4. 6. 4.]
     [6. 9. 6.]
     [4. 6. 4.]]

    Args:
      x: the images.
      kernel: the weights of each channel.
      strides: steps of the kernel, by axis.
      padding: rows and columns of zeros before and after the image, by axis.
    """
    sizes = [
        (size + low + high - window) // stride + 1
        for size, window, stride, (low, high) in zip(
            x.shape[1:3], kernel.shape[:2], strides, padding, strict=True
        )
    ]
    padded = _padded(x, padding)
    products = (
        part.astype(_wide(x)) * row.astype(_wide(x))
        for part, row in zip(
            shifted(padded, kernel.shape[:2], sizes, strides),
            kernel.reshape(-1, kernel.shape[-1]),
            strict=True,
        )
    )
    return sum(products).astype(x.dtype)


def _forward(x, kernel, strides, padding):
    # Here, as in all of this file, a barrier keeps XLA from simplifying operations across it, which
    # saves 3 to 5% of a step of EfficientNet-Lite0 on a CPU. It does not keep a value from being
    # computed again there; `storing.stored`, which does, cost 4% in its place.
    y = jax.lax.optimization_barrier(convolve(x, kernel, strides, padding))
    return y, (x, kernel)


def _backward(strides, padding, inputs, dy):
    x, kernel = inputs
    return _image_gradient(dy, kernel, x, strides, padding), _kernel_gradient(
        dy, kernel, x, strides, padding
    )


convolve.defvjp(_forward, _backward)


def _image_gradient(dy, kernel, x, strides, padding):
    """The convolution of the gradient, with zeros between its rows, and the kernel turned round."""
    places = [
        (window - 1 - low, size - 1 - (new - 1) * stride + low, stride - 1)
        for size, new, window, stride, (low, _) in zip(
            x.shape[1:3], dy.shape[1:3], kernel.shape[:2], strides, padding, strict=True
        )
    ]
    spread = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *places, (0, 0, 0)])
    none = ((0, 0), (0, 0))
    return convolve(spread, kernel[::-1, ::-1].astype(dy.dtype), (1, 1), none).astype(x.dtype)


def _kernel_gradient(dy, kernel, x, strides, padding):
    """Sums the products of the gradient and each shifted image.

    Rows are summed within an elementwise operation. What is left is an eighth as large, and a
    product of matrices sums it. One sum over all would take two to five times as long on a CPU.

    Each position of the kernel is compiled by itself where that pays: a loop over them runs 1.2 to
    3 times as long, and compiles in a sixth of the time. Alone, the positions of a large kernel
    take a minute to compile.
    """
    height, width = dy.shape[1:3]
    window = kernel.shape[:2]
    groups = -(-height // _ROWS)
    rows = -(-height // groups)
    dy = jnp.pad(dy, [(0, 0), (0, groups * rows - height), (0, 0), (0, 0)])
    needed = [
        (new - 1) * stride + side
        for new, stride, side in zip((groups * rows, width), strides, window, strict=True)
    ]
    places = [
        (low, end - low - size)
        for end, size, (low, _) in zip(needed, x.shape[1:3], padding, strict=True)
    ]
    padded, dy = _padded(x, places), jax.lax.optimization_barrier(dy)
    down, right = strides
    part_shape = (len(x), needed[0] - window[0] + 1, needed[1] - window[1] + 1, x.shape[-1])

    def of_position(position):
        part = jax.lax.dynamic_slice(padded, (0, *position, 0), part_shape)[:, ::down, ::right]
        of_rows = [
            part[:, row::rows].astype(_wide(x)) * dy[:, row::rows].astype(_wide(x))
            for row in range(rows)
        ]
        sums = jax.lax.optimization_barrier(sum(of_rows).reshape(-1, x.shape[-1]))
        return jnp.dot(jnp.ones(len(sums), sums.dtype), sums, precision="highest")

    positions = [(i, j) for i in range(window[0]) for j in range(window[1])]
    if dy.size >= _LARGE and len(positions) <= _MOST_APART:
        found = jnp.stack([of_position(position) for position in positions])
    else:
        found = jax.lax.map(of_position, jnp.array(positions))
    return found.reshape(kernel.shape).astype(kernel.dtype)


def _padded(x: Float[Array, "..."], places: Padding) -> Float[Array, "..."]:
    """Pads or cuts rows and columns."""
    config = [(0, 0, 0), *((low, high, 0) for low, high in places), (0, 0, 0)]
    return jax.lax.optimization_barrier(jax.lax.pad(x, jnp.zeros((), x.dtype), config))


def shifted(
    padded: Float[Array, "..."],
    window: Sequence[int],
    sizes: Sequence[int],
    strides: Sequence[int],
) -> Iterator[Float[Array, "..."]]:
    """The values that each position of the kernel meets, row by row of the kernel."""
    (height, width), (down, right) = sizes, strides
    for i in range(window[0]):
        for j in range(window[1]):
            rows = slice(i, i + (height - 1) * down + 1, down)
            yield padded[:, rows, j : j + (width - 1) * right + 1 : right]


def _wide(x: Float[Array, "..."]):
    return jnp.promote_types(x.dtype, jnp.float32)
