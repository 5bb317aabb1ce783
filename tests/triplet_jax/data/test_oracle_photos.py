"""Photographs are read as torchvision and timm read them, and changed as torchvision does."""

import functools
import io
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from triplet_jax.data import augment_photos, images

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms.v2")
functional = transforms.functional


@pytest.fixture(scope="module")
def photographs():
    """Real ones where SHARED_DATA has some, and one that is drawn."""
    found = sorted(
        pathlib.Path(os.environ.get("SHARED_DATA", ""), "grocery", "test").rglob("*.jpg")
    )
    y, x = np.mgrid[:90, :120] / 15
    colours = np.stack([np.sin(x) * np.cos(y), np.cos(2 * x), x > y], axis=2)
    file = io.BytesIO()
    PIL.Image.fromarray((127 + 120 * colours).clip(0, 255).astype(np.uint8)).save(file, "png")
    return [file.getvalue(), *(path.read_bytes() for path in found[::200])]


def opened(encoded):
    return PIL.Image.open(io.BytesIO(encoded)).convert("RGB")


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
def test_a_picture_is_read_as_torchvision_evaluates(photographs, resample):
    """On a tensor torchvision scales by code of its own, in integers, which round otherwise.

    The picture is made square first, so that both scale by the same factor.
    """
    mode = transforms.InterpolationMode(resample)
    form = images.ImageForm(size=112, channels=3, resample=resample, crop_ratio=112 / 128)
    for encoded in photographs:
        picture = functional.pil_to_tensor(opened(encoded))
        square = functional.center_crop(picture, [min(picture.shape[1:])])
        scaled = functional.resize(square, [128], interpolation=mode, antialias=True)
        expected = functional.center_crop(scaled, [112]).permute(1, 2, 0).numpy()
        difference = np.abs(form.read(encoded).astype(int) - expected)
        assert difference.max() <= 2
        assert (difference > 1).mean() < 1e-3


def test_a_picture_is_read_as_timm_evaluates(photographs):
    timm = pytest.importorskip("timm.data")
    made = timm.create_transform(
        input_size=(3, 112, 112), interpolation="bicubic", crop_pct=0.875, mean=0.0, std=1.0
    )
    form = images.ImageForm(size=112, channels=3, resample="bicubic", crop_ratio=0.875)
    for encoded in photographs[1:] or pytest.skip("set SHARED_DATA to real photographs"):
        expected = 255 * made(opened(encoded)).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(form.read(encoded), expected, atol=1.01)


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(size=(12, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_colours_mix_as_in_torchvision(image, kind, factor):
    number = ["brightness", "contrast", "saturation"].index(kind)
    theirs = getattr(functional, f"adjust_{kind}")(torch.tensor(image).permute(2, 0, 1), factor)
    ours = augment_photos._mixed(jnp.asarray(image), number, factor)
    # Its grey has 0.2989 of red.
    np.testing.assert_allclose(ours, theirs.permute(1, 2, 0), atol=1e-4)


@pytest.mark.parametrize("share", [-0.5, -0.1, 0.0, 0.3])
def test_hue_turns_as_in_torchvision(image, share):
    theirs = functional.adjust_hue(torch.tensor(image).permute(2, 0, 1), share)
    ours = augment_photos.turn_hue(jnp.asarray(image), share)
    np.testing.assert_allclose(ours, theirs.permute(1, 2, 0), atol=1e-5)


def test_rectangles_are_drawn_as_by_torchvision():
    """The means and deviations of the sides and places of 4,000 rectangles of each."""
    import jax

    picture = torch.zeros(3, 120, 90)
    draw = functools.partial(
        transforms.RandomResizedCrop.make_params,
        transforms.RandomResizedCrop(8, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)),
    )
    torch.manual_seed(0)
    drawn = [draw([picture]) for _ in range(4000)]
    theirs = np.array([[d[name] for name in ("top", "left", "height", "width")] for d in drawn])
    boxes, fits = jax.vmap(
        functools.partial(
            augment_photos._rectangle,
            image=jnp.zeros((120, 90, 3)),
            areas=(0.2, 1.0),
            aspect=4 / 3,
        )
    )(jax.random.split(jax.random.key(0), 4000))
    assert fits.mean() > 0.99
    ours = np.stack(boxes, axis=1)
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=1.2)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=1.2)
