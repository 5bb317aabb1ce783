"""Picture files written by the letter of their formats, and what they show, by its definition."""

import struct
import zlib

import numpy as np

# What EXIF's orientation stands for: from the picture that is shown to the one that is stored.
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.swapaxes(0, 1),
    6: lambda shown: shown.swapaxes(0, 1)[::-1],
    7: lambda shown: shown[::-1, ::-1].swapaxes(0, 1),
    8: lambda shown: shown.swapaxes(0, 1)[:, ::-1],
}
_COLOUR_TYPES = {"grey": 0, "rgb": 2, "palette": 3, "grey_alpha": 4, "rgb_alpha": 6}


def _packed(samples, bits):
    """Rows of samples `[height, values]` as bytes, the first in the highest bits."""
    digits = samples[..., None] >> np.arange(bits)[::-1] & 1
    return np.packbits(digits.reshape(len(samples), -1).astype(np.uint8), axis=1)


def png(samples, *, bits, colour, palette=None, transparency=None, orientation=None):
    """A PNG.

    Args:
      samples: `[height, width, bands]` of integers.
      bits: of each.
      colour: in `_COLOUR_TYPES`.
      palette: `[colours, 3]`.
      transparency: for a palette the opacity of its first colours, else the samples of the colour
        that is transparent.
      orientation: of EXIF.
    """

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    height, width, _ = samples.shape
    rows = _packed(samples.reshape(height, -1), bits)
    header = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPES[colour], 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    if orientation is not None:
        file += chunk(b"eXIf", exif(orientation))
    if palette is not None:
        file += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    if transparency is not None:
        kind = np.uint8 if palette is not None else np.dtype(">u2")
        file += chunk(b"tRNS", np.asarray(transparency, kind).tobytes())
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    return file + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


def exif(orientation):
    """One tag, 274, in a directory of EXIF."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def tiff(samples, *, bits, photometric, extra=(), kind=1, order="<", orientation=1, limits=None):
    """A TIFF without compression.

    Args:
      samples: `[height, width, bands]`, as integers or float32.
      bits: of each.
      photometric: 0 white is zero, 1 black is zero, 2 RGB.
      extra: of a last band, 1 premultiplied alpha, 2 alpha.
      kind: of samples, 1 unsigned, 2 signed, 3 float.
      order: of bytes, "<" or ">".
      orientation: 1 to 8.
      limits: what is black and what white, by the tags SMinSampleValue and SMaxSampleValue.
    """
    height, width, bands = samples.shape
    if bits < 16:
        content = _packed(samples.reshape(height, -1), bits).tobytes()
    else:
        letter = {1: "u", 2: "i", 3: "f"}[kind]
        content = samples.astype(f"{order}{letter}{bits // 8}").tobytes()
    tags = {
        256: ("H", width),
        257: ("H", height),
        258: ("H", *[bits] * bands),
        259: ("H", 1),
        262: ("H", photometric),
        273: ("I", 8),
        274: ("H", orientation),
        277: ("H", bands),
        278: ("H", height),
        279: ("I", len(content)),
        339: ("H", *[kind] * bands),
    }
    if extra:
        tags[338] = ("H", *extra)
    if limits:
        tags |= {340: ("d", limits[0]), 341: ("d", limits[1])}
    start = 8 + len(content) + len(content) % 2
    behind = start + 2 + 12 * len(tags) + 4
    directory, long = struct.pack(f"{order}H", len(tags)), b""
    for tag, (kind_of_value, *values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{kind_of_value}", *values)
        if len(value) > 4:
            value, long = struct.pack(f"{order}I", behind + len(long)), long + value
        code = {"H": 3, "I": 4, "d": 12}[kind_of_value]
        directory += struct.pack(f"{order}HHI", tag, code, len(values)) + value.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    padded = content.ljust(start - 8, b"\0")
    return mark + struct.pack(f"{order}I", start) + padded + directory + b"\0" * 4 + long


def shown(colours, opacity=None, *, background=255):
    """The picture `[height, width, 3]`, as floats from 0 to 255, of colours over a grey ground.

    Args:
      colours: `[height, width, 1 or 3]`, from 0 to 1.
      opacity: `[height, width]`, from 0 to 1.
      background: from 0 to 255.
    """
    colours = np.broadcast_to(255.0 * colours, (*colours.shape[:2], 3))
    if opacity is None:
        return colours
    return opacity[..., None] * colours + (1 - opacity[..., None]) * background


def padded(picture, side, background):
    """The picture in the middle of a square, which is `side` wide, as its longer side is."""
    height, width, _ = picture.shape
    square = np.full((side, side, 3), float(background))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square
