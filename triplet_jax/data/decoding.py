"""Decodes an image file as a viewer shows it: upright, in 8 bits, grey or RGB, without alpha."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageFile
from jaxtyping import UInt8

from triplet_jax import errors

# Decided by a file's content, not its name. Pillow runs programs for some other formats, such as
# PostScript.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
SUFFIXES += (".heic", ".heif")
# Pillow's own limit.
MAX_PIXELS = 178_956_970

# These warnings do not name the file; what they warn of is reported here, or changes no pixel.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning)

_TOO_LARGE = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
# Tags of a TIFF, and values of these tags.
_WIDTH, _HEIGHT = 256, 257
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT, _LOWEST, _HIGHEST = 258, 262, 339, 340, 341
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2


class _RefusedError(Exception):
    """The file is intact but cannot be shown; the message says why."""


def decode(
    encoded: bytes | str, *, least: int, background: int, max_pixels: int = MAX_PIXELS
) -> PIL.Image.Image:
    """Decodes an image file to a Pillow image of mode L (grey) or RGB.

    * It is turned upright, as its EXIF orientation says.
    * Transparent pixels are blended with the background before anything is scaled:
      `(alpha * colour + (255 - alpha) * background) / 255`.
    * Samples of more than 8 bits keep their 8 highest; from 16 bits that is within 1 of
      `round(x / 257)`. Floats run from 0 to 1, unless a TIFF states another range.
    * Values are taken as sRGB: colour profiles and the gamma of a PNG are not applied.
    * Of an animation, or of a file of pages, it is the first.

    Args:
      encoded: a JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC, as its bytes or its path.
      least: a JPEG is decoded at the cheapest size that is at least this high and wide.
      background: the grey level behind transparent pixels, from 0 (black) to 255 (white).
      max_pixels: an image of more pixels is refused; Pillow's own limit is raised to this.

    Raises:
      InputError: the file has another format, is damaged or too large, or does not state which of
        its values is white. The message says why; the caller adds the name of the file.
    """
    try:
        with _open(encoded, max_pixels) as image:
            image.draft(None, (least, least))
            _, extent, _, raw = image.tile[0] if image.tile else (None, None, None, None)
            image.load()
            shown, opacity = _in_8_bits(image, raw)
            if raw == "RGB;16B" and "transparency" in image.info:
                opacity = _differs_from_key(image, encoded, max_pixels)
            if image.format == "GIF" and tuple(extent) != (0, 0, *image.size):
                opacity = _only_within(extent, image.size, opacity)
            turn = _UPRIGHT.get(_orientation(image))
    except Exception as error:  # damage makes Pillow and zlib raise many kinds
        errors.check_answers(error)
        raise errors.InputError(_why(error, max_pixels)) from error
    if opacity:
        ground = PIL.Image.new("L", shown.size, background).convert(shown.mode)
        ground.paste(shown, mask=opacity)
        shown = ground
    return shown if turn is None else shown.transpose(turn)


def upright_size(encoded: bytes | str, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The width and the height that `decode` gives at full size, from the head of the file.

    Args:
      encoded: as in `decode`.
      max_pixels: as in `decode`.

    Raises:
      InputError: as in `decode`.
    """
    try:
        with _open(encoded, max_pixels) as image:
            size = image.size
            if image.format == "TIFF":  # Pillow 13 has turned its size, but not its orientation
                size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
            return size[::-1] if _orientation(image) in (5, 6, 7, 8) else size
    except Exception as error:  # damage makes Pillow raise many kinds
        errors.check_answers(error)
        raise errors.InputError(_why(error, max_pixels)) from error


@contextlib.contextmanager
def _open(encoded: bytes | str, max_pixels: int) -> Iterator[PIL.ImageFile.ImageFile]:
    if PIL.Image.MAX_IMAGE_PIXELS is not None:
        PIL.Image.MAX_IMAGE_PIXELS = max(PIL.Image.MAX_IMAGE_PIXELS, max_pixels)
    # Pillow never gets the name: Pillow 13 maps a TIFF whose name it knows into memory, and mixes
    # up its rows and columns if it is stored on its side.
    with (
        io.BytesIO(encoded) if isinstance(encoded, bytes) else open(encoded, "rb") as file,
        PIL.Image.open(file, formats=_formats(file.read(12))) as image,
    ):
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise _RefusedError(
                f"it has {pixels:,} pixels, and max_pixels={max_pixels:,}. Raise it to read"
                " the image, which takes some 4 to 8 bytes of memory for each pixel."
            )
        yield image


def _formats(start: bytes) -> Sequence[str]:
    """The formats that a file with these first bytes may have; HEIC needs a package of its own."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        _register_heif()
        return ("HEIF",)
    return FORMATS


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise _RefusedError(
            "HEIC needs the package pillow-heif: pip install 'triplet_jax[heic]'"
        ) from error
    pillow_heif.register_heif_opener(thumbnails=False)


def _in_8_bits(
    image: PIL.ImageFile.ImageFile, raw: str | tuple | None
) -> tuple[PIL.Image.Image, PIL.Image.Image | None]:
    """The image in grey or RGB, and its opacity, or None where all pixels are opaque.

    Args:
      image: an image whose pixels are loaded.
      raw: Pillow's name for the samples in the file, such as "L;4" for a PNG of 4 bits.
    """
    key = image.info.get("transparency")
    if image.mode == "F" or image.mode[0] == "I":
        shown = PIL.Image.fromarray(_scaled(image))
        if key is None:
            return shown, None
        return shown, PIL.Image.fromarray(np.uint8(255) * (np.asarray(image) != key))
    if image.mode == "LAB":
        raise _RefusedError("its colours are CIELAB, which is not supported. Save it as RGB.")
    if image.format == "TIFF" and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):
        raise _RefusedError("its 8-bit samples are signed. Save them as unsigned ones.")
    if image.mode == "L" and key is not None:
        # A PNG states its transparent grey in the file's bits, and Pillow scales samples to 8.
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(raw, 1)
    grey = image.mode in ("1", "L", "LA", "La")
    mode = "L" if grey else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode), None
    both = image.convert("LA" if grey else "RGBA")
    return both.convert(mode), both.getchannel("A")


def _scaled(image: PIL.ImageFile.ImageFile) -> UInt8[np.ndarray, "height width"]:
    """Brings samples of more than 8 bits to uint8."""
    samples = np.asarray(image)
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits, kind = (_first(tags.get(tag, usual)) for tag, usual in ((_BITS, 16), (_SAMPLE_FORMAT, 1)))
    lowest, highest = (_first(tags.get(tag, np.nan)) for tag in (_LOWEST, _HIGHEST))
    if not np.isfinite(samples).all():
        raise _RefusedError("some of its values are NaN or infinite. Fill them.")
    if lowest < highest and np.isfinite(highest - lowest):
        if bits == 32 and kind == _UNSIGNED:  # Pillow gives these as signed integers
            samples = samples.view(np.uint32)
        shown = (samples.astype(np.float64) - lowest) / (highest - lowest)
        grey = np.round(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    elif image.mode == "F" and samples.min() >= 0 and samples.max() <= 1:
        grey = np.round(255 * samples.astype(np.float64)).astype(np.uint8)
    elif image.mode == "F":
        raise _RefusedError(
            f"its values are floats from {samples.min():g} to {samples.max():g}, and it does"
            f" not state which are black and white. {_RANGE}"
        )
    elif bits > 16 or kind == _SIGNED:
        sign = "signed" if kind == _SIGNED else "unsigned"
        raise _RefusedError(
            f"its values are {sign} integers of {bits} bits, and it does not state which are black"
            f" and white. {_RANGE}"
        )
    else:
        grey = (samples.astype(np.uint16) >> (bits - 8)).astype(np.uint8)
    return 255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey


_RANGE = (
    "Save it with unsigned integers of 8 or 16 bits or floats from 0 to 1, or as a TIFF with the"
    " tags SMinSampleValue (340) and SMaxSampleValue (341) for its black and white."
)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _differs_from_key(
    image: PIL.ImageFile.ImageFile, encoded: bytes | str, max_pixels: int
) -> PIL.Image.Image:
    """The opacity of an RGB PNG of 16 bits in which one colour is transparent.

    Pillow keeps only the high bytes; read in the other byte order, the file gives the low ones.
    """
    with _open(encoded, max_pixels) as again:
        again.tile = [(*tile[:3], "RGB;16L") for tile in again.tile]
        low = np.asarray(again).astype(np.uint16)
    samples = np.asarray(image).astype(np.uint16) << 8 | low
    same = (samples == np.array(image.info["transparency"], np.uint16)).all(axis=2)
    return PIL.Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _only_within(
    extent: Sequence[int], size: tuple[int, int], opacity: PIL.Image.Image | None
) -> PIL.Image.Image:
    """The opacity of a GIF whose first frame covers only a part of its canvas."""
    whole = PIL.Image.new("L", size, 0)
    part = opacity.crop(extent) if opacity else 255
    whole.paste(part, tuple(extent))
    return whole


def _orientation(image: PIL.ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 to 8; 1, which is upright, where there is none or it is damaged."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF makes Pillow raise many kinds; the pixels are intact
        return 1


def _why(error: Exception, max_pixels: int) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)} and HEIC, or a kind that Pillow does not know"
    if isinstance(error, _TOO_LARGE):
        return f"it has more pixels than max_pixels={max_pixels:,} allows. Raise it."
    return str(error) or repr(error)
