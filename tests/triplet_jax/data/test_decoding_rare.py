"""Rare pictures: grey levels of few and many bits, HEIC, and files that are no pictures."""

import io
import sys
import types

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from tests.support.picture_files import png, tiff
from triplet_jax import errors
from triplet_jax.data import decoding


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_meant_in_its_own_bits(bits):
    levels = np.array([[[0], [1]]])
    file = png(levels, bits=bits, colour="grey", transparency=[1])
    read = np.asarray(decoding.decode(file, least=1, background=77).convert("L"))
    assert read.tolist() == [[0, 77]]


def test_unsigned_samples_of_32_bits_are_scaled_by_the_stated_range():
    levels = np.array([[[0], [2**31], [3 * 2**30], [2**32 - 1]]])
    file = tiff(levels, bits=32, photometric=1, limits=(2**31, 2**32 - 1))
    read = np.asarray(decoding.decode(file, least=1, background=255).convert("L"))
    assert read.tolist() == [[0, 0, 128, 255]]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"no image", "it is none of"),
        (png(np.zeros((9, 9, 1), int), bits=8, colour="grey"), "it has 81 pixels, and max_pix"),
    ],
)
def test_the_size_of_what_cannot_be_read_is_refused(file, message):
    with pytest.raises(errors.InputError, match=message):
        decoding.upright_size(file, max_pixels=80)


def test_heic_is_read_by_its_package(monkeypatch):
    """With a stand-in for it, which takes what follows the head for a PNG."""
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"

    def opened(file, name):
        return PIL.PngImagePlugin.PngImageFile(io.BytesIO(file.getvalue()[len(head) :]))

    def register(thumbnails):
        assert not thumbnails  # as large as the picture, and not its colours
        monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (opened, None))

    monkeypatch.setitem(PIL.Image.OPEN, "HEIF", None)
    package = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    file = head + png(np.array([[[3], [99]]]), bits=8, colour="grey")
    assert np.asarray(decoding.decode(file, least=1, background=255).convert("L")).tolist() == [
        [3, 99]
    ]
    assert decoding.upright_size(file) == (2, 1)
