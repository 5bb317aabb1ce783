"""Looks for images that decoding stumbles over, led by atheris to code that no image reached yet.

    python -m tests.support.fuzz_images -max_total_time=600

`make fuzz` installs atheris. The flags are libFuzzer's. It ends with a traceback, and leaves the
bytes in a file crash-*, where an image is neither decoded nor refused, and with a file timeout-*
where that takes ten seconds.
"""

import io
import pathlib
import sys
import tempfile
import warnings

import atheris

with atheris.instrument_imports(
    include=["PIL", "triplet_jax.data.decoding", "triplet_jax.data.images"]
):
    import numpy as np
    import PIL.BmpImagePlugin
    import PIL.GifImagePlugin
    import PIL.Image
    import PIL.JpegImagePlugin
    import PIL.MpoImagePlugin
    import PIL.PngImagePlugin
    import PIL.TiffImagePlugin
    import PIL.WebPImagePlugin

    from triplet_jax import errors
    from triplet_jax.data import image_checks, images

FORM = images.ImageForm(size=16, channels=3)
FLAGS = ("-max_len=4096", "-timeout=10", "-rss_limit_mb=4096")


def main() -> None:
    warnings.simplefilter("ignore")  # of Pillow, which goes on with what it could read
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "seeds").mkdir()
        for number, image in enumerate(seeds()):
            (root / "seeds" / str(number)).write_bytes(image)
        atheris.Setup([*sys.argv, *FLAGS, str(root / "seeds")], decoded_or_refused(root / "x.png"))
        atheris.Fuzz()


def decoded_or_refused(file: pathlib.Path):
    """What is done with each image: what is kept of a folder must be decoded, or refused, later."""

    def of(encoded):
        file.write_bytes(encoded)
        kept = image_checks.keep_images([file], "skip")
        try:
            pixels = FORM.read(encoded)
        except errors.InputError:
            assert not kept, "it was kept, and cannot be decoded"
        else:
            assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8

    return of


def seeds():
    """Small images of every format, and of every kind that it can be."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    colour = PIL.Image.fromarray(pixels)
    yield encoded(PIL.Image.fromarray(pixels[..., 0].astype(np.uint16)), "PNG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield encoded(colour.convert(mode), "PNG")
    yield encoded(colour.convert("P"), "PNG", transparency=3)
    yield encoded(colour, "PNG", dpi=(72, 72), save_all=True, append_images=[colour])
    for mode in ("L", "RGB", "CMYK"):
        yield encoded(colour.convert(mode), "JPEG")
    rotated = PIL.Image.Exif()
    rotated[0x0112] = 6
    yield encoded(colour, "JPEG", progressive=True, dpi=(72, 72), exif=rotated)
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"):
        yield encoded(colour.convert(mode), "TIFF")
    for kind in (np.uint16, np.int32, np.float32):
        yield encoded(PIL.Image.fromarray(pixels[..., 0].astype(kind)), "TIFF")
    yield encoded(colour, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6})
    yield encoded(colour.convert("P"), "GIF", transparency=3)
    for mode in ("1", "L", "P", "RGB"):
        yield encoded(colour.convert(mode), "BMP")
    for mode in ("RGB", "RGBA"):
        yield encoded(colour.convert(mode), "WEBP", exif=rotated)
    yield encoded(colour, "MPO", save_all=True, append_images=[colour])


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


if __name__ == "__main__":
    main()
