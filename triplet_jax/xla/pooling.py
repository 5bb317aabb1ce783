"""The maximum over 2 x 2 windows, with a gradient that is one pass on a CPU.

The gradient of XLA's window reduction is slow on a CPU. That of comparisons, as jax differentiates
them, adds arrays with zeros between their rows, and then columns, and stores each of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from triplet_jax.xla import extremes, storing

# A byte for each window holds who won its three comparisons: in the left column the upper value by
# the first bit and the lower one by the second, in the right column by the next two bits, and the
# left and the right column by the last two. Both bits are set where the two are equal.
_BITS = np.array([[1 + 16, 4 + 32], [2 + 16, 8 + 32]], np.uint8)
_BELOW = np.array([[2, 8], [1, 4]], np.uint8)
_BESIDE = np.array([[32, 16], [32, 16]], np.uint8)


@jax.custom_jvp
def max_2x2(
    x: Float[Array, "batch height width channels"], lowest: Bool[Array, "..."] | bool = False
) -> Float[Array, "batch half_height half_width channels"]:
    """The maximum over the 2 x 2 windows of images with even sides.

    Pairs of rows are compared, and then pairs of columns. Equal ones share the gradient, as in
    `extremes.larger`.

    Args:
      x: the images.
      lowest: the channels of which the minimum is taken instead.
    """
    return _compared(x, lowest)[0]


def _compared(x, lowest):
    """The maxima, and who won."""
    x = jnp.where(lowest, -x, x)
    columns = [(x[:, 0::2, i::2], x[:, 1::2, i::2]) for i in range(2)]
    pairs = *columns, [extremes.larger(*column) for column in columns]
    won = [~beaten for a, b in pairs for beaten in (b > a, a > b)]  # NaN equals everything
    code = sum(bit.astype(jnp.uint8) << place for place, bit in enumerate(won))
    largest = extremes.larger(*pairs[-1])
    return jnp.where(lowest, -largest, largest), code


@max_2x2.defjvp
def _with_slope(inputs, changes):
    # Without being stored, all comparisons would be made for each of the four values again.
    largest, code = storing.stored(_compared, inputs[0], jnp.asarray(inputs[1]))
    batch, height, width, channels = code.shape

    def has(bits):
        return code[:, :, None, :, None] & bits[:, None, :, None]

    def halved(change, equal):
        return jnp.where(has(equal) == 0, change, 0.5 * change)

    # As rows and columns of windows, over which the gradient is spread by one operation.
    change = changes[0].reshape(batch, height, 2, width, 2, channels)
    own = has(_BITS) == _BITS[:, None, :, None]
    change = jnp.where(own, halved(halved(change, _BELOW), _BESIDE), 0)
    return largest, change.sum((2, 4))
