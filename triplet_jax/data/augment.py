"""Augmentation: random changes to images that keep their class.

Each is a pure function of a key and one image `[height, width, channels]` of floats; `jax.vmap`
lifts it to a batch. Pixels from beyond the border repeat the nearest pixel inside.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

Image = Float[Array, "height width channels"]
Augmentation = Callable[[PRNGKeyArray, Image], Image]


def affine(
    key: PRNGKeyArray,
    image: Image,
    *,
    shift: float = 0.0,
    rotate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
) -> Image:
    """A random shift, rotation, scaling and shear about the centre, in one bilinear resampling.

    Each amount is drawn uniformly from `[-limit, limit]`. The four make one map of coordinates, so
    that the image is interpolated, and blurred, only once.

    Args:
      key: the source of randomness.
      image: the image.
      shift: the limit along each axis, in pixels.
      rotate: the limit in degrees.
      scale: the limit of the size's logarithm; 0.1 is about 10%.
      shear: the limit in degrees.
    """
    height, width, _ = image.shape
    keys = jax.random.split(key, 4)
    offset = jax.random.uniform(keys[0], (2,), minval=-shift, maxval=shift)
    angle = jnp.deg2rad(jax.random.uniform(keys[1], minval=-rotate, maxval=rotate))
    size = jnp.exp(jax.random.uniform(keys[2], minval=-scale, maxval=scale))
    slant = jnp.tan(jnp.deg2rad(jax.random.uniform(keys[3], minval=-shear, maxval=shear)))
    rotation = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    matrix = rotation @ jnp.array([[1.0, slant], [0.0, 1.0]]) / size
    centre = jnp.array([(height - 1) / 2, (width - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))
    source = jnp.einsum("ij,jhw->ihw", matrix, grid - centre[:, None, None])
    source = source + (centre + offset)[:, None, None]
    return _sample(image, source)


def _sample(image: Image, at: Float[Array, "2 height width"]) -> Image:
    """Reads the image at these rows and columns, bilinearly."""
    corner = jnp.floor(at)
    (top, left), (down, right) = corner.astype(jnp.int32), at - corner

    def pixel(row: Int[Array, "height width"], column: Int[Array, "height width"]) -> Image:
        row = jnp.clip(row, 0, image.shape[0] - 1)
        return image[row, jnp.clip(column, 0, image.shape[1] - 1)]

    down, right = down[..., None], right[..., None]
    upper = pixel(top, left) * (1 - right) + pixel(top, left + 1) * right
    lower = pixel(top + 1, left) * (1 - right) + pixel(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def crop(key: PRNGKeyArray, image: Image, *, pixels: int) -> Image:
    """A random shift by whole pixels, up to `pixels` along each axis, which blurs nothing."""
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def flip(key: PRNGKeyArray, image: Image) -> Image:
    """Exchanges left and right with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def noise(key: PRNGKeyArray, image: Image, *, std: float) -> Image:
    """Adds independent Gaussian noise of standard deviation `std` to every value."""
    return image + std * jax.random.normal(key, image.shape)


def quarter_turn(key: PRNGKeyArray, image: Image) -> Image:
    """Rotates a square image by 0, 90, 180 or 270 degrees, with equal probability."""
    turns = jax.random.randint(key, (), 0, 4)
    return jax.lax.switch(turns, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], image)


def chain(
    *,
    crop_pixels: int = 0,
    flip_sides: bool = False,
    turn: bool = False,
    shift: float = 0.0,
    rotate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    noise_std: float = 0.0,
) -> Augmentation:
    """Composes the augmentations that are switched on, in the order of the arguments.

    >>> augment = chain(crop_pixels=2, flip_sides=True)
    >>> augment(jax.random.key(0), jnp.zeros((8, 8, 1))).shape
    (8, 8, 1)

    Args:
      crop_pixels: `pixels` of `crop`; 0 for none.
      flip_sides: whether to `flip`.
      turn: whether to `quarter_turn`.
      shift: of `affine`, which runs if one of its four limits is not 0.
      rotate: of `affine`.
      scale: of `affine`.
      shear: of `affine`.
      noise_std: `std` of `noise`; 0 for none.

    Returns:
      A function of a key and one image; without any augmentation it returns the image.
    """
    steps = []
    if crop_pixels:
        steps.append(lambda key, x: crop(key, x, pixels=crop_pixels))
    if flip_sides:
        steps.append(flip)
    if turn:
        steps.append(quarter_turn)
    if shift or rotate or scale or shear:
        steps.append(
            lambda key, x: affine(key, x, shift=shift, rotate=rotate, scale=scale, shear=shear)
        )
    if noise_std:
        steps.append(lambda key, x: noise(key, x, std=noise_std))
    return in_order(steps)


def in_order(steps: Sequence[Augmentation]) -> Augmentation:
    """Composes augmentations, each with a key of its own; without any it returns the image."""

    def apply(key: PRNGKeyArray, image: Image) -> Image:
        for number, step in enumerate(steps):
            image = step(jax.random.fold_in(key, number), image)
        return image

    return apply
