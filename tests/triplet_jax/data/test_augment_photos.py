import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
from hypothesis import given, settings

from triplet_jax import errors
from triplet_jax.data import augment_photos
from triplet_jax.devices import collectives

ALL = {
    "smallest": 0.3,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "grey_share": 0.3,
    "largest_blur": 1.0,
    "erase_share": 0.5,
}
EVERYTHING = augment_photos.chain(**ALL)


@pytest.fixture
def image():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(12, 9, 3)), jnp.float32)


def several(function, image, draws=300):
    keys = jax.random.split(jax.random.key(7), draws)
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, image)))(keys))


def drawn_box(monkeypatch, box):
    """Makes every random rectangle this one."""
    made = augment_photos._Box(*map(jnp.float32, box))
    monkeypatch.setattr(augment_photos, "_rectangle", lambda *_: (made, jnp.array(True)))


# -- crops -------------------------------------------------------------------------------


@pytest.mark.parametrize("box", [(0, 0, 12, 9), (2, 1, 7, 6), (1.3, 0.4, 5.2, 8.6), (11, 8, 1, 1)])
def test_a_crop_is_enlarged_as_pillow_enlarges(image, box, monkeypatch):
    drawn_box(monkeypatch, box)
    top, left, height, width = box
    found = augment_photos.resized_crop(jax.random.key(0), image)
    for channel in range(3):
        expected = PIL.Image.fromarray(np.asarray(image[..., channel])).resize(
            (9, 12), PIL.Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize("sides", [(12, 9), (1, 7)])
@pytest.mark.parametrize(("smallest", "aspect"), [(0.05, 3.0), (0.6, 1.5), (1.0, 1.0)])
def test_a_rectangle_has_the_area_and_the_sides_that_were_asked_for(sides, smallest, aspect):
    draw = functools.partial(
        augment_photos._rectangle,
        image=jnp.zeros((*sides, 1)),
        areas=(smallest, 1.0),
        aspect=aspect,
    )
    boxes, fits = jax.vmap(draw)(jax.random.split(jax.random.key(0), 200))
    box = jax.tree.map(lambda x: np.asarray(x, np.float64)[np.asarray(fits)], boxes)
    share, ratio = box.height * box.width / np.prod(sides), box.width / box.height
    assert ((share >= 0.999 * smallest) & (share <= 1.001)).all()
    assert ((ratio >= 0.999 / aspect) & (ratio <= 1.001 * aspect)).all()
    assert (box.top >= 0).all() and (box.top + box.height <= 1.0001 * sides[0]).all()
    assert (box.left >= 0).all() and (box.left + box.width <= 1.0001 * sides[1]).all()
    assert fits.any() == (smallest == 0.05 or (smallest == 0.6 and sides == (12, 9)))


def test_the_share_of_the_area_is_uniform():
    """Where every draw fits, which small rectangles in a square do."""
    draw = functools.partial(
        augment_photos._rectangle, image=jnp.zeros((8, 8, 1)), areas=(0.1, 0.5), aspect=2.0
    )
    boxes, fits = jax.vmap(draw)(jax.random.split(jax.random.key(0), 4000))
    assert fits.all()
    assert float((boxes.height * boxes.width).mean() / 64) == pytest.approx(0.3, abs=0.006)
    assert float(jnp.log(boxes.width / boxes.height).mean()) == pytest.approx(0, abs=0.02)
    middle = (boxes.top + boxes.height / 2, boxes.left + boxes.width / 2)
    for at in middle:
        assert float(at.mean()) == pytest.approx(4, abs=0.1)


def test_where_no_rectangle_fits_the_largest_one_in_the_middle_is_taken(key):
    """A square in a long image: the whole of its shorter side."""
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 12, 1)), jnp.float32)
    found = augment_photos.resized_crop(key, image, smallest=1.0, aspect=1.0)
    expected = PIL.Image.fromarray(np.asarray(image[..., 0])).resize(
        (12, 4), PIL.Image.Resampling.BILINEAR, box=(4, 0, 8, 4)
    )
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)


# -- colours -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_mixing_follows_its_formula_and_is_clipped(image, kind):
    shade = np.asarray(image) @ np.array([0.299, 0.587, 0.114], np.float32)
    other = [0.0, shade.mean(), shade[..., None]][kind]
    for factor in (0.0, 0.6, 1.7):
        found = augment_photos._mixed(image, kind, factor)
        expected = np.clip(factor * image + (1 - factor) * other, 0, 1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(-0.5, 0.5))
def test_hue_turns_as_the_colour_circle_of_python_does(colour, share):
    import colorsys

    pixel = np.asarray(colour, np.float32) / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel.tolist())
    expected = colorsys.hsv_to_rgb((hue + share) % 1, saturation, value)
    found = augment_photos.turn_hue(jnp.asarray(pixel)[None, None], jnp.float32(share))
    np.testing.assert_allclose(found[0, 0], expected, atol=2e-6)


def test_jitter_draws_from_its_range_in_every_order():
    """Of an even grey, brightness is all that shows; its factor is uniform."""
    found = several(functools.partial(augment_photos.colour_jitter, brightness=0.4), half(), 2000)
    values = found[:, 0, 0, 0]
    assert values.min() >= 0.3 and values.max() <= 0.7
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert values.std() == pytest.approx(0.4 / np.sqrt(12), rel=0.05)


def half():
    return jnp.full((2, 2, 3), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("hue", [0.0, 0.3])
def test_the_parts_of_jitter_come_in_all_orders(hue):
    """Which shows because each of them clips, so that they do not commute."""
    image = jnp.array([[[0.9, 0.1, 0.2], [0.2, 0.8, 0.7]]])
    keys = jax.random.split(jax.random.key(0), 400)
    orders = jax.vmap(lambda key: jax.random.permutation(jax.random.split(key, 4)[1], 3))(keys)
    assert len(np.unique(orders, axis=0)) == 6
    jitter = functools.partial(
        augment_photos.colour_jitter, brightness=0.5, contrast=0.5, saturation=0.5, hue=hue
    )
    for key, order, found in zip(keys[:20], orders, several_by(jitter, keys, image), strict=False):
        np.testing.assert_allclose(found, by_hand(key, order, image, hue), atol=1e-5)


def several_by(function, keys, image):
    return np.asarray(jax.jit(jax.vmap(lambda key: function(key, image)))(keys))


def by_hand(key, order, image, hue):
    of_factors, _, of_hue, of_turn = jax.random.split(key, 4)
    factors = 1 + 0.5 * jax.random.uniform(of_factors, (3,), minval=-1, maxval=1)
    steps = [functools.partial(augment_photos._mixed, kind=k, factor=factors[k]) for k in order]
    if hue:
        share = jax.random.uniform(of_hue, minval=-hue, maxval=hue)
        turn = functools.partial(augment_photos.turn_hue, share=share)
        steps.insert(int(jax.random.randint(of_turn, (), 0, 4)), turn)
    for step in steps:
        image = step(image)
    return image


def test_grey_takes_the_colour_of_its_share(image):
    found = several(functools.partial(augment_photos.grey, share=0.2), image, 500)
    shade = np.asarray(image) @ np.array([0.299, 0.587, 0.114], np.float32)
    is_grey = np.abs(found - shade[None, ..., None]).max(axis=(1, 2, 3)) < 1e-6
    np.testing.assert_array_equal(found[~is_grey], np.broadcast_to(image, found[~is_grey].shape))
    assert 0.14 < is_grey.mean() < 0.26


@pytest.mark.parametrize(
    "change",
    [
        functools.partial(augment_photos.grey, share=1.0),
        functools.partial(augment_photos.colour_jitter, saturation=1.0, hue=0.5),
    ],
)
def test_colours_of_a_grey_image_stay_and_two_channels_are_refused(key, image, change):
    found = change(key, image[..., :1])
    np.testing.assert_allclose(found, image[..., :1], atol=1e-6)
    with pytest.raises(errors.InputError, match="2 channels.*1 .grey. or 3"):
        change(key, image[..., :2])


# -- blur and erasing --------------------------------------------------------------------


def test_blur_is_that_of_scipy(image, key):
    found = augment_photos.blur(key, image, largest=1.5, share=1.0)
    deviation = jax.random.uniform(jax.random.split(key)[1], minval=0.1, maxval=1.5)
    for channel in range(3):
        expected = scipy.ndimage.gaussian_filter(
            np.asarray(image[..., channel]), float(deviation), mode="mirror", radius=4
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_blur_happens_to_its_share(image):
    found = several(functools.partial(augment_photos.blur, largest=2.0), image, 400)
    same = (found == np.asarray(image)).all(axis=(1, 2, 3)).mean()
    assert 0.4 < same < 0.6


def test_erasing_fills_one_rectangle_with_noise(image):
    erased = several(functools.partial(augment_photos.erase, share=0.5), jnp.zeros_like(image), 300)
    other = several(functools.partial(augment_photos.erase, share=0.5), jnp.ones_like(image), 300)
    inside = (erased == other).all(axis=3)  # the same noise, over another ground
    assert 0.4 < inside.any(axis=(1, 2)).mean() < 0.6
    for one in inside:
        rows, columns = one.any(axis=1), one.any(axis=0)
        np.testing.assert_array_equal(one, rows[:, None] & columns)
        for line in (rows, columns):
            assert np.abs(np.diff(line.astype(int), prepend=0, append=0)).sum() in (0, 2)
    noise = erased[inside]
    assert noise.mean() == pytest.approx(0.5, abs=0.02)
    assert noise.std() == pytest.approx(1 / np.sqrt(12), abs=0.02)
    assert 0.02 < inside[inside.any(axis=(1, 2))].mean() < 0.4


# -- all together ------------------------------------------------------------------------


def test_trivial_ranges_change_nothing(key, image):
    assert augment_photos.chain()(key, image) is image
    square = image[:9]
    trivial = [
        functools.partial(augment_photos.resized_crop, smallest=1.0, aspect=1.0),
        augment_photos.colour_jitter,
        functools.partial(augment_photos.grey, share=0.0),
        functools.partial(augment_photos.blur, largest=2.0, share=0.0),
        functools.partial(augment_photos.blur, largest=1e-3, share=1.0),
        functools.partial(augment_photos.erase, share=0.0),
    ]
    for change in trivial:
        np.testing.assert_allclose(change(key, square), square, atol=1e-6)


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(EVERYTHING)


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 1.0, None]))
def test_values_stay_between_0_and_1(compiled, seed, constant):
    image = np.random.default_rng(seed).uniform(size=(12, 9, 3)).astype(np.float32)
    image = jnp.asarray(image if constant is None else np.full_like(image, constant))
    found = compiled(jax.random.key(seed), image)
    assert found.dtype == jnp.float32 and found.shape == image.shape
    assert ((found >= 0) & (found <= 1)).all()  # and so no NaN


def test_compiled_and_alone_it_gives_what_it_gives_eagerly_and_in_a_batch(compiled, image):
    keys = jax.random.split(jax.random.key(3), 8)
    batch = jax.jit(jax.vmap(EVERYTHING))(keys, jnp.stack([image] * 8))
    np.testing.assert_allclose(batch[0], EVERYTHING(keys[0], image), atol=1e-5)
    for key, found in zip(keys, batch, strict=True):
        np.testing.assert_allclose(found, compiled(key, image), atol=1e-5)


@pytest.mark.slow
def test_eight_devices_change_images_as_one_does(image):
    keys = jax.random.split(jax.random.key(3), 8)
    images = jnp.stack([image + i / 100 for i in range(8)]) / 2
    alone = jax.jit(jax.vmap(EVERYTHING))(keys, images)
    several = collectives.over_devices(
        lambda keys, images: collectives.gather(
            jax.vmap(EVERYTHING)(keys, images), collectives.DEVICES
        ),
        in_axes=(0, 0),
    )(keys[:, None], images[:, None])
    np.testing.assert_allclose(several, alone, atol=1e-6)
