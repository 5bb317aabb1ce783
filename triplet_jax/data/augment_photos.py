"""Augmentation of photographs: crops of any size, colours, blur and erased rectangles.

Each function takes a key and one image `[height, width, channels]` with values from 0 to 1, and
returns such an image; `jax.vmap` lifts it to a batch. Images have 3 channels, or 1 for grey ones,
whose saturation and hue cannot change.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from triplet_jax import errors
from triplet_jax.data.augment import Augmentation, Image, in_order

_DRAWS = 10
_GREY = (0.299, 0.587, 0.114)


class _Box(NamedTuple):
    """A rectangle in an image, in pixels from its top left corner."""

    top: Float[Array, ""]
    left: Float[Array, ""]
    height: Float[Array, ""]
    width: Float[Array, ""]


def resized_crop(
    key: PRNGKeyArray, image: Image, *, smallest: float = 0.08, aspect: float = 4 / 3
) -> Image:
    """Cuts out a random rectangle and brings it to the size of the image, bilinearly.

    The rectangle has a share of the image's area that is drawn uniformly from `[smallest, 1]`, and
    a ratio of width to height whose logarithm is drawn uniformly from `[-log(aspect),
    log(aspect)]`. It lies anywhere inside. Of ten draws the first that fits into the image is
    taken, and the largest rectangle in the middle if none does. GoogLeNet crops like this (Szegedy
    et al. 2015, section 6, https://arxiv.org/abs/1409.4842), with these defaults. A rectangle is no
    larger than the image, so that it is only ever enlarged, and nothing has to be smoothed.

    >>> image = jnp.linspace(0, 1, 8 * 8 * 3).reshape(8, 8, 3)
    >>> part = resized_crop(jax.random.key(0), image, smallest=0.2)
    >>> part.shape, bool(part.max() - part.min() < 1)
    ((8, 8, 3), True)

    Args:
      key: the source of randomness.
      image: the image.
      smallest: the smallest share of the area, in (0, 1].
      aspect: the largest ratio of the sides, at least 1.
    """
    height, width, _ = image.shape
    drawn, fits = _rectangle(key, image, (smallest, 1.0), aspect)
    ratio = min(max(width / height, 1 / aspect), aspect)
    tall, wide = min(height, width / ratio), min(width, height * ratio)
    middle = _Box((height - tall) / 2, (width - wide) / 2, tall, wide)
    box = jax.tree.map(lambda a, b: jnp.where(fits, a, b), drawn, middle)
    return _enlarged(_enlarged(image, box.top, box.height, 0), box.left, box.width, 1)


def _rectangle(
    key: PRNGKeyArray, image: Image, areas: tuple[float, float], aspect: float
) -> tuple[_Box, Bool[Array, ""]]:
    """The first random rectangle that fits into an image, and whether one of ten did."""
    height, width, _ = image.shape
    of_area, of_ratio, of_place = jax.random.split(key, 3)
    area = jax.random.uniform(of_area, (_DRAWS,), minval=areas[0], maxval=areas[1])
    most = math.log(aspect)
    ratio = jnp.exp(jax.random.uniform(of_ratio, (_DRAWS,), minval=-most, maxval=most))
    heights, widths = (jnp.sqrt(area * height * width * r) for r in (1 / ratio, ratio))
    fits = (heights <= height) & (widths <= width)
    first = jnp.argmax(fits)
    tall, wide = heights[first], widths[first]
    down, right = jax.random.uniform(of_place, (2,))
    return _Box(down * (height - tall), right * (width - wide), tall, wide), fits[first]


def _enlarged(image: Image, start: Float[Array, ""], length: Float[Array, ""], axis: int) -> Image:
    """A part of one axis, interpolated linearly to as many pixels as there are."""
    pixels = image.shape[axis]
    at = start + (jnp.arange(pixels) + 0.5) * (length / pixels) - 0.5
    before = jnp.floor(at)
    share = jnp.expand_dims(at - before, [a for a in range(3) if a != axis])
    near, far = (
        jnp.take(image, jnp.clip(before.astype(jnp.int32) + i, 0, pixels - 1), axis=axis)
        for i in (0, 1)
    )
    return near * (1 - share) + far * share


def colour_jitter(
    key: PRNGKeyArray,
    image: Image,
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> Image:
    """Changes brightness, contrast, saturation and hue, in a random order.

    The first three mix the image with another one, `f x + (1 - f) y`, and clip the values to
    [0, 1]: y is black for brightness, the mean of the grey image for contrast, and the grey image
    for saturation. Each f is drawn uniformly from `[1 - strength, 1 + strength]`. Hue turns the
    colour circle by a share of it that is drawn uniformly from `[-hue, hue]`. Grey is
    `0.299 R + 0.587 G + 0.114 B`. Without hue this is what torchvision's `ColorJitter` does.

    >>> image = jnp.full((2, 2, 3), 0.5)
    >>> jittered = colour_jitter(jax.random.key(0), image, brightness=0.4)
    >>> bool((jittered >= 0.3).all() & (jittered <= 0.7).all())
    True

    Args:
      key: the source of randomness.
      image: the image.
      brightness: its strength, in [0, 1].
      contrast: its strength, in [0, 1].
      saturation: its strength, in [0, 1].
      hue: its strength, in [0, 0.5].

    Raises:
      InputError: the image has neither 1 nor 3 channels.
    """
    _check_channels(image)
    strengths = jnp.array([brightness, contrast, saturation])
    of_factors, of_order, of_hue, of_turn = jax.random.split(key, 4)
    factors = 1 + strengths * jax.random.uniform(of_factors, (3,), minval=-1.0, maxval=1.0)
    order = jax.random.permutation(of_order, 3)
    if not hue or image.shape[2] == 1:
        for i in range(3):
            image = _mixed(image, order[i], factors[order[i]])
        return image
    # The hue comes at one of four places among the other changes. To compute it only once, each of
    # the others is applied both before and after it, one of the two times by a factor of 1.
    place = jax.random.randint(of_turn, (), 0, 4)
    for i in range(3):
        image = _mixed(image, order[i], jnp.where(i < place, factors[order[i]], 1.0))
    image = turn_hue(image, jax.random.uniform(of_hue, minval=-hue, maxval=hue))
    for i in range(3):
        image = _mixed(image, order[i], jnp.where(i < place, 1.0, factors[order[i]]))
    return image


def _mixed(image, kind, factor):
    """The image mixed with black, with its mean, or with its grey image, by `kind` 0, 1 or 2."""
    shade = _as_grey(image)
    other = jnp.where(kind == 0, 0.0, jnp.where(kind == 1, shade.mean(), shade))
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def turn_hue(image: Image, share: float | Float[Array, ""]) -> Image:
    """Turns the colours of an image by a share of the colour circle, from red over green to blue.

    The brightest channel V and the chroma C = V - min of each pixel stay. A channel is
    `V - C max(0, min(k, 4 - k, 1))` with k = (n + 6 H) mod 6, where n = 5, 3, 1 for red, green and
    blue, and H is the hue in [0, 1).

    >>> turned = turn_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 1 / 3)
    >>> print(jnp.round(turned[0, 0], 3))
    [0. 1. 0.]
    """
    red, green, blue = jnp.moveaxis(image, 2, 0)
    value, least = image.max(axis=2), image.min(axis=2)
    chroma = value - least
    safe = jnp.where(chroma > 0, chroma, 1.0)
    # The channels are compared with each other, and not with their maximum: a compiled program may
    # compute a channel twice and round it differently, so that no channel equals the maximum.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / safe,
        jnp.where(green >= blue, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )

    def channel(n: int) -> Float[Array, "height width"]:
        k = n + sixths + 6 * share
        k = k - 6 * jnp.floor(k / 6)
        return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

    return jnp.clip(jnp.stack([channel(5), channel(3), channel(1)], axis=2), 0, 1)


def grey(key: PRNGKeyArray, image: Image, *, share: float) -> Image:
    """Takes the colour out of a share of the images.

    Raises:
      InputError: the image has neither 1 nor 3 channels.
    """
    _check_channels(image)
    shade = jnp.broadcast_to(_as_grey(image), image.shape)
    return jnp.where(jax.random.bernoulli(key, share), shade, image)


def _as_grey(image: Image) -> Float[Array, "height width 1"]:
    if image.shape[2] == 1:
        return image
    return sum(share * image[..., i : i + 1] for i, share in enumerate(_GREY))


def _check_channels(image):
    if image.shape[2] not in (1, 3):
        raise errors.InputError(
            f"image has {image.shape[2]} channels, and colours change for 1 (grey) or 3 (red, green"
            " and blue): leave the changes of colour out."
        )


def blur(
    key: PRNGKeyArray,
    image: Image,
    *,
    largest: float,
    smallest: float = 0.1,
    share: float = 0.5,
) -> Image:
    """Blurs a share of the images by a Gaussian, whose standard deviation is drawn uniformly.

    SimCLR does this (Chen et al. 2020, appendix A, https://arxiv.org/abs/2002.05709), with 0.1 to 2
    pixels, half of the time. Beyond the border lies the mirrored image. The kernel ends at three
    times `largest`.

    Args:
      key: the source of randomness.
      image: the image.
      largest: the largest standard deviation, in pixels.
      smallest: the smallest one.
      share: of the images that are blurred.
    """
    whether, how_much = jax.random.split(key)
    deviation = jax.random.uniform(how_much, minval=min(smallest, largest), maxval=largest)
    down, across = (_smoothing(n, deviation, 3 * largest) for n in image.shape[:2])
    # A product of matrices, since XLA would compute the image anew for every term of a sum of
    # shifted ones.
    blurred = jnp.einsum("rh,cw,hwn->rcn", down, across, image, precision="highest")
    return jnp.where(jax.random.bernoulli(whether, share), jnp.clip(blurred, 0, 1), image)


def _smoothing(pixels: int, deviation: Float[Array, ""], reach: float) -> Float[Array, "size size"]:
    """The matrix that blurs a line of pixels, mirrored at both ends."""
    last = pixels - 1
    to, source = jnp.arange(pixels)[:, None], jnp.arange(pixels)

    def weight(distance):
        return jnp.where(abs(distance) <= reach, jnp.exp(-0.5 * (distance / deviation) ** 2), 0)

    mirrored = jnp.where(source > 0, weight(to + source), 0)
    mirrored += jnp.where(source < last, weight(2 * last - to - source), 0)
    matrix = weight(to - source) + mirrored
    return matrix / matrix.sum(axis=1, keepdims=True)


def erase(
    key: PRNGKeyArray,
    image: Image,
    *,
    share: float,
    areas: tuple[float, float] = (0.02, 0.4),
    aspect: float = 10 / 3,
) -> Image:
    """Replaces a random rectangle by noise, in a share of the images.

    Random erasing (Zhong et al. 2017, https://arxiv.org/abs/1708.04896) with its defaults: the
    values are uniform in [0, 1]. Of ten rectangles the first that fits into the image is taken;
    where none does, nothing is erased.

    Args:
      key: the source of randomness.
      image: the image.
      share: of the images from which a rectangle is erased.
      areas: the smallest and the largest share of the area.
      aspect: the largest ratio of the sides, whose logarithm is drawn uniformly.
    """
    whether, where, what = jax.random.split(key, 3)
    box, fits = _rectangle(where, image, areas, aspect)
    rows, columns = (jnp.arange(n) for n in image.shape[:2])
    of_row = (rows >= box.top) & (rows < box.top + box.height)
    of_column = (columns >= box.left) & (columns < box.left + box.width)
    inside = of_row[:, None, None] & of_column[:, None]
    inside &= fits & jax.random.bernoulli(whether, share)
    # Four values of 8 bits from each word that is drawn, since drawing is what takes time.
    words = jax.random.bits(what, (-(-image.size // 4),))
    levels = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: image.size]
    noise = levels.reshape(image.shape) / jnp.float32(255)
    return jnp.where(inside, noise, image)


def chain(
    *,
    smallest: float = 0.0,
    aspect: float = 4 / 3,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    grey_share: float = 0.0,
    largest_blur: float = 0.0,
    erase_share: float = 0.0,
) -> Augmentation:
    """Composes the augmentations that are switched on, in the order of the arguments.

    >>> augment = chain(smallest=0.2, brightness=0.4, grey_share=0.2)
    >>> augment(jax.random.key(0), jnp.ones((8, 8, 3))).shape
    (8, 8, 3)

    Args:
      smallest: of `resized_crop`; 0 for none.
      aspect: of `resized_crop`.
      brightness: of `colour_jitter`, which runs if one of its four strengths is not 0.
      contrast: of `colour_jitter`.
      saturation: of `colour_jitter`.
      hue: of `colour_jitter`.
      grey_share: `share` of `grey`; 0 for none.
      largest_blur: `largest` of `blur`; 0 for none.
      erase_share: `share` of `erase`; 0 for none.

    Returns:
      A function of a key and one image; without any augmentation it returns the image.
    """
    steps = []
    if smallest:
        steps.append(lambda key, x: resized_crop(key, x, smallest=smallest, aspect=aspect))
    strengths = {
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
    }
    if any(strengths.values()):
        steps.append(lambda key, x: colour_jitter(key, x, **strengths))
    if grey_share:
        steps.append(lambda key, x: grey(key, x, share=grey_share))
    if largest_blur:
        steps.append(lambda key, x: blur(key, x, largest=largest_blur))
    if erase_share:
        steps.append(lambda key, x: erase(key, x, share=erase_share))
    return in_order(steps)
