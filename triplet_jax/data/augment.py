"""Random changes to images that leave their class alone.

Each is a pure function of a key and one image of floats, `[height, width, channels]`;
`jax.vmap` gives a batch. What moves beyond the border is filled with the nearest pixel.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Image = Float[Array, "height width channels"]


def affine(
    key: PRNGKeyArray,
    image: Image,
    *,
    shift: float = 0.0,
    rotate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
) -> Image:
    """A random shift, rotation, change of size and shear about the centre, in one resampling.

    Each is drawn uniformly from a symmetric range and interpolated bilinearly, so that an
    image is blurred once, not once for each of them.

    Args:
      key: the source of randomness.
      image: the image.
      shift: up to this many pixels along each axis.
      rotate: up to this many degrees either way.
      scale: the logarithm of the size changes by up to this; 0.1 is about 10%.
      shear: up to this many degrees either way.
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
    corner = jnp.floor(at)
    (top, left), (down, right) = corner.astype(jnp.int32), at - corner

    def pixel(row, column):
        row = jnp.clip(row, 0, image.shape[0] - 1)
        return image[row, jnp.clip(column, 0, image.shape[1] - 1)]

    down, right = down[..., None], right[..., None]
    upper = pixel(top, left) * (1 - right) + pixel(top, left + 1) * right
    lower = pixel(top + 1, left) * (1 - right) + pixel(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def crop(key: PRNGKeyArray, image: Image, *, pixels: int) -> Image:
    """A shift by a whole number of pixels, up to `pixels` along each axis; nothing is blurred."""
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    row, column = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)


def flip(key: PRNGKeyArray, image: Image) -> Image:
    """Left and right exchanged, with probability one half."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def noise(key: PRNGKeyArray, image: Image, *, std: float) -> Image:
    """Independent Gaussian noise of standard deviation `std` on every value."""
    return image + std * jax.random.normal(key, image.shape)


def quarter_turn(key: PRNGKeyArray, image: Image) -> Image:
    """A rotation by 0, 90, 180 or 270 degrees with equal probability, for a square image."""
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
) -> Callable[[PRNGKeyArray, Image], Image]:
    """All of the above one after the other; those left at 0 or False cost nothing."""
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

    def apply(key: PRNGKeyArray, image: Image) -> Image:
        for number, step in enumerate(steps):
            image = step(jax.random.fold_in(key, number), image)
        return image

    return apply
