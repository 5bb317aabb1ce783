"""Images are scaled, cut, selected and turned."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest

from tests.support.image_folders import FORM, fold
from triplet_jax import errors
from triplet_jax.data import images


def test_an_image_is_scaled_and_its_middle_cut_out():
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 200
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "png")
    found = images.ImageForm(size=10, channels=1).read(file.getvalue())
    assert found.shape == (10, 10, 1)
    assert (found[:, 1:-1] == 200).all()
    inverted = images.ImageForm(size=10, channels=1, invert=True).read(file.getvalue())
    assert (inverted == 255 - found).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_can_be_read(mode, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        PIL.Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(path)
    else:
        PIL.Image.new(mode, (9, 9)).save(path)
    assert FORM.read(str(path)).shape == (8, 8, 3)


def test_images_are_selected_and_turned_without_being_read(class_folders):
    everything = fold(class_folders).inputs
    some = everything[np.array([5, 0])]
    assert len(some) == 2
    np.testing.assert_array_equal(some[0], everything[5])
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0, 0] = 255
    PIL.Image.fromarray(pixels).save(class_folders / "corner.png")
    corner = images.Images([str(class_folders / "corner.png")], FORM)
    turned = corner.turned(np.array([3]))
    np.testing.assert_array_equal(images.load(turned), np.rot90(pixels, 3)[None])


def encoded(pixels, kind="png"):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def photograph():
    """Smooth colours with edges, 60 pixels high and 80 wide."""
    y, x = np.mgrid[:60, :80] / 10
    colours = np.stack([np.sin(x) * np.cos(y), np.cos(2 * x), (x > y)], axis=2)
    return (127 + 120 * colours).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("resample", images.RESAMPLE)
@pytest.mark.parametrize("fit", images.FITS)
def test_a_crop_ratio_keeps_the_middle_of_the_square(photograph, resample, fit):
    """So does scaling to more pixels, and cutting the middle out."""
    part = images.ImageForm(size=30, channels=3, fit=fit, resample=resample, crop_ratio=0.75)
    whole = images.ImageForm(size=40, channels=3, fit=fit, resample=resample)
    found, expected = (form.read(encoded(photograph)).astype(int) for form in (part, whole))
    np.testing.assert_allclose(found, expected[5:-5, 5:-5], atol=1)


def test_each_way_of_scaling_is_that_of_pillow(photograph):
    form = images.ImageForm(size=24, channels=3)
    read = {
        name: dataclasses.replace(form, resample=name).read(encoded(photograph))
        for name in images.RESAMPLE
    }
    for name, method in images.RESAMPLE.items():
        scaled = PIL.Image.fromarray(photograph).resize((24, 24), method, box=(10, 0, 70, 60))
        np.testing.assert_array_equal(read[name], scaled)
    assert len({pixels.tobytes() for pixels in read.values()}) == 3


def test_a_jpeg_is_decoded_at_enough_pixels_for_the_part_that_is_kept(monkeypatch):
    """A quarter of 1024 pixels is enough for 200 of the whole, and not for 200 of a half."""
    asked = []
    decode = images.decoding.decode
    monkeypatch.setattr(
        images.decoding, "decode", lambda *a, **k: asked.append(k["least"]) or decode(*a, **k)
    )
    file = encoded(np.zeros((1024, 1024, 3), np.uint8), "jpeg")
    for ratio in (1.0, 0.5):
        images.ImageForm(size=200, channels=3, crop_ratio=ratio).read(file)
    assert asked == [200, 400]


@pytest.mark.parametrize("fit", images.FITS)
@pytest.mark.parametrize("sides", [(1, 1), (1, 50), (50, 1)])
def test_the_smallest_ratio_can_be_read(fit, sides):
    form = images.ImageForm(size=9, channels=1, fit=fit, crop_ratio=images.LEAST_RATIO)
    assert form.read(encoded(np.full(sides, 200, np.uint8))).max() == 200


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"resample": "nearest"}, "resample='nearest' is not known.*Allowed: bicubic, bilinear"),
        ({"crop_ratio": 0.0}, "crop_ratio=0.0 must be from 0.01 to 1"),
        ({"crop_ratio": 1.5}, "crop_ratio=1.5 must be"),
        ({"crop_ratio": float("nan")}, "crop_ratio=nan must be"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(field, message):
    with pytest.raises(errors.InputError, match=message):
        images.ImageForm(size=8, channels=3, **field).read(encoded(np.zeros((8, 8), np.uint8)))


def test_images_are_read_whole_for_training_that_crops_them(photograph):
    part = images.ImageForm(size=30, channels=3, crop_ratio=0.5)
    some = images.Images([encoded(photograph)] * 2, part).turned(np.array([0, 1]))
    expected = dataclasses.replace(part, crop_ratio=1.0).read(encoded(photograph))
    np.testing.assert_array_equal(some.whole()[0], expected)
    np.testing.assert_array_equal(some.whole()[np.array([1])][0], np.rot90(expected))
    assert (some[0] != expected).any()


def test_a_form_of_before_says_what_it_said():
    """Galleries know by this text what their embeddings were made with."""
    form = images.ImageForm(size=8, channels=3)
    before = "ImageForm(size=8, channels=3, invert=False, fit='crop', background=255, rules=2)"
    assert repr(form) == before
    newer = dataclasses.replace(form, resample="bicubic", crop_ratio=0.875)
    assert repr(newer) == before[:-1] + ", resample='bicubic', crop_ratio=0.875)"
