"""A picture reads as a viewer shows it, whatever its file stores, and by every way of reading."""

import io
import subprocess
import sys

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas
import PIL.Image
import pytest

from configs import base
from experiments.config import check, datasets
from experiments.run import data_json, embedders, search_answers, sheets
from tests.support import picture_files
from tests.support.picture_files import STORED, padded, png, shown, tiff
from triplet_jax import data, errors
from triplet_jax.data import decoding, image_checks, images


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def oriented(image, form, orientation, **options):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, form, exif=exif.tobytes(), **options)


def plain(file, **fields):
    """The pixels of a file whose picture is square, unscaled."""
    with PIL.Image.open(io.BytesIO(file)) as image:
        size = image.width
    return images.ImageForm(size=size, channels=3, **fields).read(file)


# -- any picture -------------------------------------------------------------------------


def draw_png(draw, samples_of, orientation, background):
    """A PNG of any kind: the file, what it shows, and how far apart the two may be."""
    colour = draw(st.sampled_from(["grey", "rgb", "palette", "grey_alpha", "rgb_alpha"]))
    allowed = {"grey": [1, 2, 4, 8, 16], "palette": [1, 2, 4, 8]}.get(colour, [8, 16])
    bits = draw(st.sampled_from(allowed))
    bands = {"grey": 1, "palette": 1, "rgb": 3, "grey_alpha": 2, "rgb_alpha": 4}[colour]
    samples = samples_of(bands, bits)
    white, opacity, more = 2**bits - 1, None, {}
    colours = samples / white
    if colour.endswith("_alpha"):
        colours, opacity = colours[..., :-1], colours[..., -1]
    elif colour == "palette":
        random = np.random.default_rng(draw(st.integers(0, 99)))
        palette = random.integers(0, 256, (2**bits, 3))
        colours, more["palette"] = palette[samples[..., 0]] / 255, palette
        if draw(st.booleans()):
            some = random.choice([0, 255, 90], draw(st.integers(1, 2**bits)))
            opaque = np.concatenate([some, np.full(2**bits - len(some), 255)])
            more["transparency"], opacity = some, opaque[samples[..., 0]] / 255
    elif draw(st.booleans()):
        more["transparency"] = key = samples[-1, -1]
        opacity = 1.0 - (samples == key).all(axis=2)
    file = png(
        STORED[orientation](samples), bits=bits, colour=colour, orientation=orientation, **more
    )
    tolerance = 0.5 if bits <= 8 else 2 if opacity is not None else 1
    return file, shown(colours, opacity, background=background), tolerance


def draw_tiff(draw, samples_of, orientation, background):
    """A TIFF file, and what is shown of it within which tolerance."""
    bits = draw(st.sampled_from([8, 12, 16, 32]))
    # Pillow 13 knows 12 bits, and white as zero with more than 8, in this order of bytes alone.
    order = "<" if bits == 12 else draw(st.sampled_from("<>"))
    opacity, more = None, {}
    bands = (
        1 if bits in (12, 32) else draw(st.sampled_from([1, 2, 3, 4] if bits == 8 else [1, 3, 4]))
    )
    samples, white = samples_of(bands, bits), 2**bits - 1
    tolerance = {8: 0.5, 12: 1, 16: 1, 32: 0.5}[bits]
    if bits == 32:
        samples, more["kind"], white = np.float32(samples / white), 3, 1
    elif bands == 1 and bits == 16 and draw(st.booleans()):
        white, tolerance = 4095, 0.5
        samples, more["limits"] = samples >> 4, (0.0, float(white))
    colours = samples / white
    if bands in (2, 4):
        premultiplied = draw(st.booleans())
        more["extra"], tolerance = (1 if premultiplied else 2,), 2
        colours, opacity = colours[..., :-1], colours[..., -1]
        if premultiplied:
            samples[..., :-1] = np.round(samples[..., :-1] * opacity[..., None])
    photometric = 2 if bands > 2 else 1
    if bands == 1 and bits != 12 and order == "<" and draw(st.booleans()):
        photometric, colours = 0, 1 - colours
    stored = STORED[orientation](samples)
    file = tiff(
        stored, bits=bits, photometric=photometric, order=order, orientation=orientation, **more
    )
    return file, shown(colours, opacity, background=background), tolerance


def draw_other(draw, samples_of, orientation, background):
    """A WebP, or what has no orientation: a BMP or a GIF."""
    form = draw(st.sampled_from(["WEBP", "BMP", "GIF"]))
    samples = samples_of(1 if form == "GIF" else draw(st.sampled_from([3, 4])), 8)
    opacity = None
    if form == "GIF":
        colours = np.broadcast_to(samples, (*samples.shape[:2], 3)) / 255
        key = samples[-1, -1, 0]
        opacity = 1.0 - (samples[..., 0] == key)
        image = PIL.Image.fromarray(samples[..., 0].astype(np.uint8)).convert("P")
        file = encoded(image, form, transparency=int(key))
    else:
        colours = samples[..., :3] / 255
        opacity = samples[..., 3] / 255 if samples.shape[2] == 4 and form == "WEBP" else None
        stored = STORED[orientation if form == "WEBP" else 1](samples).astype(np.uint8)
        image = PIL.Image.fromarray(stored if opacity is not None else stored[..., :3])
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        write = encoded if form == "BMP" else lambda *a, **o: oriented(*a, orientation, **o)
        file = write(image, form, **options)
    return file, shown(colours, opacity, background=background), 0.5


@pytest.mark.parametrize("draw_file", [draw_png, draw_tiff, draw_other])
@hypothesis.settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(drawn=st.data())
def test_any_picture_reads_as_it_is_shown_by_every_way(draw_file, drawn, tmp_path):
    height, width = drawn.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    random = np.random.default_rng(drawn.draw(st.integers(0, 2**16)))
    background = drawn.draw(st.sampled_from([255, 0, 77]))

    def samples_of(bands, bits):
        few = random.integers(0, 2**bits, (3, bands))  # so that some are equal
        return few[random.integers(0, 3, (height, width))]

    orientation = drawn.draw(st.integers(1, 8))
    file, picture, tolerance = draw_file(drawn.draw, samples_of, orientation, background)
    side = max(height, width)
    form = images.ImageForm(size=side, channels=3, fit="pad", background=background)
    read = form.read(file)
    expected = padded(picture, side, background)
    np.testing.assert_allclose(read.astype(float), expected, rtol=0, atol=tolerance + 1e-6)

    path = tmp_path / "images" / "cat" / "x.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file)
    fields = {"size": side, "fit": "pad", "background": background}
    config = base.get_config()
    config.update_from_flattened_dict(
        {"dataset.image_size": side, "dataset.fit": "pad", "dataset.background": background}
    )
    assert datasets.image_form(config.dataset) == form
    split = {"held_out": data.HeldOut(0.0, 0.0, seed=0), "split_by": "image"}
    folder = data.folder(str(tmp_path / "images"), form=form, bad_images="refuse", **split)
    embedder = embedders.Embedder(lambda _, pictures: images.load(pictures), {}, form)
    for again in (form.read(str(path)), images.load(folder.inputs)[0], embedder([path])[0]):
        np.testing.assert_array_equal(again, read)
    grey = images.ImageForm(channels=1, **fields).read(file)[..., 0]
    luma = expected @ (0.299, 0.587, 0.114)
    np.testing.assert_allclose(grey.astype(float), luma, rtol=0, atol=tolerance + 1)


# -- orientation -------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [30, 100, 240])
def test_a_jpeg_reads_near_to_the_upright_one_at_every_size_of_draft(orientation, size):
    rows, columns = np.mgrid[:240, :320]
    picture = np.stack([rows, columns * 3 / 4, 255 * (rows < 60)], axis=2).astype(np.uint8)
    form = images.ImageForm(size=size, channels=3)
    upright = form.read(encoded(PIL.Image.fromarray(picture), "JPEG", quality=98, subsampling=0))
    stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[orientation](picture)))
    turned = form.read(oriented(stored, "JPEG", orientation, quality=98, subsampling=0))
    assert np.abs(turned.astype(int) - upright).mean() < 1
    assert (np.abs(turned.astype(int) - upright).max(axis=2) > 12).mean() < 0.02


@pytest.mark.parametrize("value", [b"\xff", b"II*\0\x08\0\0\0\x05\0", picture_files.exif(99)])
def test_a_damaged_or_unknown_orientation_is_taken_as_upright(value):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    file = encoded(PIL.Image.fromarray(pixels), "PNG", exif=value)
    np.testing.assert_array_equal(plain(file), pixels)


# -- transparency ------------------------------------------------------------------------


def test_hidden_colours_do_not_show_at_edges():
    """Red that no viewer shows stands behind the transparent half; black ink beside it."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, 32:] = (255, 0, 0, 0)
    pixels[:, :32, 3] = 255
    read = images.ImageForm(size=7, channels=3).read(encoded(PIL.Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(read[..., 0], read[..., 1])
    assert read[0, 0, 0] == 0 and read[0, -1, 0] == 255


def test_black_ink_on_a_transparent_ground_is_no_empty_picture():
    ink = np.zeros((8, 8, 2), np.uint8)
    ink[2:6, 3, 1] = 255
    read = plain(encoded(PIL.Image.fromarray(ink, "LA"), "PNG"))
    np.testing.assert_array_equal(read[..., 0], 255 - ink[..., 1])
    dark = plain(encoded(PIL.Image.fromarray(ink, "LA"), "PNG"), background=0)
    assert not dark.any()
    np.testing.assert_array_equal(
        plain(encoded(PIL.Image.fromarray(ink, "LA"), "PNG"), invert=True), 255 - read
    )


def test_what_a_gif_leaves_free_of_its_canvas_is_transparent():
    file = bytearray(encoded(PIL.Image.new("L", (4, 4), 90).convert("P"), "GIF"))
    file[6:10] = (6).to_bytes(2, "little") * 2  # of the canvas
    read = plain(bytes(file))
    assert (read[:4, :4] == 90).all()
    assert (read[4:] == 255).all() and (read[:, 4:] == 255).all()


# -- depth and colour --------------------------------------------------------------------


def test_a_ramp_of_16_bits_is_no_white_picture():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    file = encoded(PIL.Image.fromarray(ramp), "PNG")
    read = plain(file)[..., 0].astype(int)
    assert np.abs(read - np.round(ramp / 257)).max() <= 1
    coloured = png(np.repeat(ramp[..., None], 3, axis=2), bits=16, colour="rgb")
    np.testing.assert_array_equal(plain(coloured), plain(file))


FLOATS = np.array([[0.0, 2.0], [1.0, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (tiff(FLOATS[..., None], bits=32, kind=3, photometric=1), "floats from 0 to 2.*340"),
        (tiff(np.full((2, 2, 1), np.nan), bits=32, kind=3, photometric=1), "NaN or infinite"),
        (tiff(FLOATS[..., None], bits=32, photometric=1), "unsigned integers of 32 bits"),
        (tiff(FLOATS[..., None], bits=16, kind=2, photometric=1), "signed integers of 16 bits"),
        (tiff(FLOATS[..., None].astype(int), bits=8, kind=2, photometric=1), "signed"),
        (encoded(PIL.Image.new("LAB", (2, 2)), "TIFF"), "CIELAB"),
        (encoded(PIL.Image.new("RGB", (2, 2)), "AVIF"), "none of JPEG, PNG"),
        (encoded(PIL.Image.new("RGB", (2, 2)), "ICNS"), "none of JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "none of JPEG, PNG"),
    ],
)
def test_what_does_not_state_its_black_and_white_is_refused(file, message, tmp_path):
    (tmp_path / "x.tif").write_bytes(file)
    with pytest.raises(errors.InputError, match=message):
        images.ImageForm(size=2, channels=3).read(file)
    with pytest.raises(errors.InputError, match=message):
        image_checks.keep_images([tmp_path / "x.tif"], "refuse")


def test_a_float_picture_with_a_stated_range_is_read():
    file = tiff(FLOATS[..., None], bits=32, kind=3, photometric=1, limits=(0.0, 2.0))
    np.testing.assert_array_equal(plain(file)[..., 0], [[0, 255], [128, 64]])


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_inks_read_as_the_colours_that_they_print(form):
    cyan, black, paper = (255, 0, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0)
    for inks, colour in ((cyan, (0, 255, 255)), (black, (0, 0, 0)), (paper, (255, 255, 255))):
        read = plain(encoded(PIL.Image.new("CMYK", (8, 8), inks), form))
        assert np.abs(read.astype(int) - colour).max() <= 2


# -- what is not square, and what is large -----------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_is_that_of_the_decoded_picture(form, orientation):
    file = oriented(PIL.Image.new("L", (100, 40)), form, orientation)
    picture = decoding.decode(file, least=100, background=255)
    assert decoding.upright_size(file) == picture.size


def test_the_whole_of_a_long_picture_is_seen_where_it_is_asked_for():
    signatures = np.full((2, 8, 100), 255, np.uint8)
    signatures[0, :, :20], signatures[1, :, 80:] = 0, 0
    files = [encoded(PIL.Image.fromarray(pixels), "PNG") for pixels in signatures]
    read = {
        fit: [images.ImageForm(size=25, channels=1, fit=fit).read(f)[..., 0] for f in files]
        for fit in images.FITS
    }
    assert (read["crop"][0] == read["crop"][1]).all()
    assert (read["stretch"][0][:, :4] == 0).all() and (read["stretch"][0][:, 6:] == 255).all()
    np.testing.assert_array_equal(read["stretch"][0], read["stretch"][1][:, ::-1])
    padding = np.delete(read["pad"][0], range(11, 13), axis=0)
    assert (padding == 255).all() and (read["pad"][0][11:13, :4] == 0).all()
    with pytest.raises(errors.InputError, match="fit='squeeze' is not known"):
        images.ImageForm(size=8, channels=1, fit="squeeze").read(files[0])


def test_more_pixels_than_the_limit_are_refused_and_others_read(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)  # Pillow's own, which would warn
    pixels = np.arange(144, dtype=np.uint8).reshape(12, 12)
    for form in ("PNG", "TIFF", "WEBP", "GIF", "BMP"):
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)
        file = encoded(PIL.Image.fromarray(pixels), form)
        (tmp_path / "x.png").write_bytes(file)
        with pytest.raises(errors.InputError, match="max_pixels=143"):
            images.ImageForm(size=12, channels=1, max_pixels=143).read(file)
        with pytest.raises(errors.InputError, match="max_pixels=143"):
            image_checks.keep_images([tmp_path / "x.png"], "refuse", max_pixels=143)
        images.ImageForm(size=12, channels=1, max_pixels=144).read(file)
    assert images.ImageForm(size=12, channels=1).max_pixels == decoding.MAX_PIXELS
    assert base.get_config().dataset.max_pixels == decoding.MAX_PIXELS


def test_pillow_writes_nothing_to_stderr(tmp_path):
    """In a process of its own, since pytest has its own filters of warnings."""
    PIL.Image.new("L", (30, 30)).save(tmp_path / "x.png")
    code = (
        "import PIL.Image; PIL.Image.MAX_IMAGE_PIXELS = 500\n"
        "from triplet_jax import errors\n"
        "from triplet_jax.data import images\n"
        "try: images.ImageForm(size=8, channels=1, max_pixels=600).read('x.png')\n"
        "except errors.InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "max_pixels=600" in done.stdout and not done.stderr


# -- programs ----------------------------------------------------------------------------


def test_the_mark_of_embeddings_follows_the_rules_of_reading():
    form = images.ImageForm(size=8, channels=3)
    others = [
        images.ImageForm(size=8, channels=3, **field)
        for field in ({"fit": "pad"}, {"background": 0}, {"invert": True})
    ]
    marks = {embedders.Embedder(None, {}, f).mark for f in (form, *others)}
    assert len(marks) == 4
    assert "rules=" in repr(form)
    larger = images.ImageForm(size=8, channels=3, max_pixels=9)
    assert embedders.Embedder(None, {}, larger).mark == embedders.Embedder(None, {}, form).mark


def test_the_sheet_shows_what_the_encoder_sees(tmp_path, monkeypatch):
    pixels = np.zeros((20, 80, 4), np.uint8)
    pixels[:, :10, 3] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png")
    drawn = []
    monkeypatch.setattr(sheets.plots, "contact_sheet", drawn.extend)
    monkeypatch.setattr(sheets.plots, "write", lambda figure, sheet: None)
    monkeypatch.setattr(sheets.plt, "close", lambda figure: None)
    form = images.ImageForm(size=160, channels=3, fit="pad", background=200)
    nearest = pandas.DataFrame({"path": [str(tmp_path / "x.png")], "label": "a", "distance": 0.5})
    answers = search_answers.as_table([tmp_path / "x.png"], [nearest], None)
    search_answers.draw(answers, form, tmp_path / "sheet.png")
    assert len(drawn[0]) == 2
    for picture, *_ in drawn[0]:
        assert picture.shape == (160, 160, 3)
        assert (picture[0] == 200).all() and (picture[80, :18] == 0).all()


def test_heic_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(errors.InputError, match=r"pip install 'triplet_jax\[heic\]'"):
        images.ImageForm(size=8, channels=3).read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_heic_is_read_upright():
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install 'triplet_jax[heic]'")
    rows, columns = np.mgrid[:64, :64]
    picture = np.stack([4 * rows, 4 * columns, 0 * rows], axis=2).astype(np.uint8)
    pillow_heif.register_heif_opener(thumbnails=False)
    for orientation in (1, 6):
        stored = PIL.Image.fromarray(np.ascontiguousarray(STORED[orientation](picture)))
        read = plain(oriented(stored, "HEIF", orientation, quality=95))
        assert np.abs(read.astype(int) - picture).mean() < 8


def test_data_that_read_otherwise_than_when_a_run_began_are_refused_with_the_reason(
    tmp_path, monkeypatch
):
    split = {"held_out": data.HeldOut(0.0, 0.0, seed=0), "split_by": "image"}
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        image = PIL.Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        image.save(tmp_path / "images" / name / "1.png")

    def marks():
        form = images.ImageForm(size=8, channels=3)
        found = data.folder(str(tmp_path / "images"), form=form, bad_images="refuse", **split)
        return data_json.content(found)

    def before(encoded, **_):
        with PIL.Image.open(encoded) as image:
            return image.convert("RGB")

    with monkeypatch.context() as old:
        old.setattr(images.decoding, "decode", before)
        data_json.remember(tmp_path, marks())
        data_json.remember(tmp_path, marks())
    with pytest.raises(errors.InputError, match="train split .* read otherwise by a newer version"):
        data_json.remember(tmp_path, marks())


@pytest.mark.parametrize(
    ("field", "value"), [("fit", "squeeze"), ("background", 256), ("max_pixels", 0)]
)
def test_bad_fields_are_refused_by_name(field, value):
    config = base.get_config()
    config.dataset.name = "folder"
    config.dataset[field] = value
    with pytest.raises(errors.InputError, match=f"dataset.{field}="):
        check.check(config)
