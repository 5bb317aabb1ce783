"""Images are scaled, cut, selected and turned."""

import io

import numpy as np
import PIL.Image
import pytest

from tests.support.image_folders import FORM, fold
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
