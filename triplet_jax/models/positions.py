"""Where a patch is in its image: learned positions and patches of another size, and rotations."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Grid = tuple[int, int]
"""Rows and columns of patches."""


def resample(
    positions: Float[Array, "places dim"], old: Grid, new: Grid, *, antialias: bool
) -> Float[Array, "new_places dim"]:
    """Learned positions of a grid of patches, for an image with another grid.

    Args:
      positions: one row for each place of the old grid, row by row.
      old: the grid that they were learned for.
      new: the grid of the image.
      antialias: see `bicubic`.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax.models import positions
      >>> learned = jnp.ones((4, 8))
      >>> positions.resample(learned, (2, 2), (3, 5), antialias=True).shape
      (15, 8)
    """
    if old == new:
        return positions
    rows, columns = (
        jnp.asarray(bicubic(a, b, antialias=antialias), positions.dtype)
        for a, b in zip(old, new, strict=True)
    )
    grid = positions.reshape(*old, -1)
    return jnp.einsum("rh,cw,hwd->rcd", rows, columns, grid).reshape(math.prod(new), -1)


def bicubic(old: int, new: int, *, antialias: bool) -> np.ndarray:
    r"""The matrix [new, old] that resamples a row of `old` values to `new` values.

    A new value is at $x = (i + 1/2)\, s - 1/2$ among the old ones, with $s$ = old / new, and
    weighs the old value at $j$ by Keys' cubic kernel $k_a(x - j)$
    (1981, https://doi.org/10.1109/TASSP.1981.1163711).

    Args:
      old: how many values there are.
      new: how many are wanted.
      antialias: True takes $a = -0.5$, and stretches the kernel by $s$ where the row shrinks, as
        Pillow does; values beyond the ends have no weight. False takes $a = -0.75$ and four
        values, of which those beyond an end are the last. These are PyTorch's `antialias=True` and
        `False`; the reference code of each family uses one of them.
    """
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale - 0.5
    if antialias:
        stretch = max(scale, 1.0)
        weights = _cubic((centres[:, None] - np.arange(old)) / stretch, a=-0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((new, old))
    first = np.floor(centres).astype(int) - 1
    for tap in range(4):
        at = first + tap
        weight = _cubic(centres - at, a=-0.75)
        np.add.at(matrix, (np.arange(new), np.clip(at, 0, old - 1)), weight)
    return matrix


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic kernel, which is 0 from a distance of 2."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize_patches(
    kernel: Float[Array, "height width channels dim"], size: int
) -> Float[Array, "size size channels dim"]:
    r"""The kernel of a patch embedding for patches of another size.

    FlexiViT's PI-resize (Beyer et al. 2023, section 3.4, https://arxiv.org/abs/2212.08013): with
    the matrix $B$ that resizes a patch, $\hat w = (B^\top)^+ w$, so that a patch that is enlarged
    keeps its embedding, $\langle B x, \hat w \rangle = \langle x, w \rangle$. $B$ is bicubic and
    separable, and so is its pseudo-inverse.
    """
    if kernel.shape[0] == size:
        return kernel
    resize = bicubic(kernel.shape[0], size, antialias=True)
    inverse = jnp.asarray(np.linalg.pinv(resize.T), kernel.dtype)
    return jnp.einsum("ah,bw,hwcd->abcd", inverse, inverse, kernel)


def rotations(
    grid: Grid, dim: int, *, base: float = 100.0
) -> tuple[Float[Array, "places dim"], Float[Array, "places dim"]]:
    r"""Cosines and sines by which DINOv3 rotates queries and keys, for each place of a grid.

    The centre of a patch is at $(y, x)$ in $[-1, 1]^2$, whatever the size of the image. A quarter
    of a head's values turns by the angles $2 \pi y / b^{4 k / d}$, $k = 0, 1, \ldots$, and a
    quarter by those of $x$ (Siméoni et al. 2025, https://arxiv.org/abs/2508.10104).

    Args:
      grid: rows and columns of patches.
      dim: values of a head, a multiple of 4.
      base: the longest period.
    """
    y, x = ((np.arange(n) + 0.5) / n * 2 - 1 for n in grid)
    frequencies = base ** -np.arange(0, 1, 4 / dim)
    places = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)
    angles = 2 * np.pi * places[:, :, None] * frequencies
    angles = np.tile(angles.reshape(len(places), -1), 2)
    return jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)


def rotate(
    x: Float[Array, "batch tokens heads dim"],
    cosines: Float[Array, "places dim"],
    sines: Float[Array, "places dim"],
) -> Float[Array, "batch tokens heads dim"]:
    """Rotates the queries or keys of patches: the last tokens; those before have no place.

    Value i of a head turns with value i + dim / 2.
    """
    first = x.shape[1] - cosines.shape[0]
    patches = x[:, first:].astype(jnp.float32)
    one, other = jnp.split(patches, 2, axis=-1)
    turned = jnp.concatenate([-other, one], axis=-1)
    patches = patches * cosines[:, None] + turned * sines[:, None]
    return jnp.concatenate([x[:, :first], patches.astype(x.dtype)], axis=1)
