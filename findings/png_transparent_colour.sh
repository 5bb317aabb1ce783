#!/usr/bin/env bash
# The transparent colour of a PNG (tRNS) is lost by Pillow when the samples are scaled to 8 bits.
#
# Expected: convert("RGBA") gives alpha 0 to the pixels whose samples equal the tRNS colour, as the PNG
# specification says (https://www.w3.org/TR/png-3/#11tRNS: "in the same bit depth as the image"), at any
# bit depth: it does at 1 and 8 bits.
# Happens: at 2 and 4 bits of grey, and at 16 bits of grey or RGB, no pixel becomes transparent. The samples
# were scaled to 8 bits (2 becomes 170), the colour was not (it still is 2).
# A picture of ink on a transparent ground is then all ink, or has a ground of any colour.
#
# Seen with Pillow 13.0.0 on Python 3.11:
#   grey, 1 bits: alpha [255, 0], expected [255, 0]
#   grey, 2 bits: alpha [255, 255], expected [255, 0]
#   grey, 4 bits: alpha [255, 255], expected [255, 0]
#   grey, 8 bits: alpha [255, 0], expected [255, 0]
#   grey, 16 bits: alpha [255, 255], expected [255, 0]
#   RGB, 16 bits: alpha [255, 255], expected [255, 0]
# Source: PIL/PngImagePlugin.py, chunk_tRNS, which scales the colour of 1 bit alone; PIL/Image.py, convert.
# https://github.com/python-pillow/Pillow/pull/3744 mended the same for 1 bit.
#
# A way out: compare the samples in the file's own bits (for grey, multiply info["transparency"] by 85 at 2
# bits and by 17 at 4 bits before convert).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys
import zlib

import PIL.Image


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(row, bits, colour_type, transparent):
    """Two pixels beside each other."""
    header = struct.pack(">IIBBBBB", 2, 1, bits, colour_type, 0, 0, 0)
    data = zlib.compress(b"\0" + row)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", transparent) + chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


# Samples 0 and 1, the second of which is transparent; of RGB the first value alone differs.
FILES = {
    ("grey", 1): png(bytes([0b01000000]), 1, 0, struct.pack(">H", 1)),
    ("grey", 2): png(bytes([0b00010000]), 2, 0, struct.pack(">H", 1)),
    ("grey", 4): png(bytes([0x01]), 4, 0, struct.pack(">H", 1)),
    ("grey", 8): png(bytes([0, 1]), 8, 0, struct.pack(">H", 1)),
    ("grey", 16): png(struct.pack(">HH", 0, 4660), 16, 0, struct.pack(">H", 4660)),
    ("RGB", 16): png(struct.pack(">6H", 0, 2, 3, 4660, 2, 3), 16, 2, struct.pack(">3H", 4660, 2, 3)),
}
lost = set()
for (kind, bits), file in FILES.items():
    alpha = PIL.Image.open(io.BytesIO(file)).convert("RGBA").getchannel("A")
    alpha = [alpha.getpixel((x, 0)) for x in range(2)]
    print(f"{kind}, {bits} bits: alpha {alpha}, expected [255, 0]")
    if alpha != [255, 0]:
        lost.add((kind, bits))
expected = {("grey", 2), ("grey", 4), ("grey", 16), ("RGB", 16)}
sys.exit(0 if lost == expected else "The behaviour has changed.")
PYTHON
