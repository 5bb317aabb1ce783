#!/usr/bin/env bash
# A grey TIFF in which 0 is white reads inverted with 8 bits by Pillow, and not with 16 bits or floats.
#
# Expected: the same picture, stored with PhotometricInterpretation 0 (WhiteIsZero, TIFF 6.0, section 4) at 8
# and at 16 bits, reads with the same brightness: sample 0 is white.
# Happens: at 8 bits Pillow inverts the samples, so that 0 reads as 255. At 16 bits, and for floats, it gives
# them as stored, so that 0 reads as 0, and says nothing of it but in tag_v2[262].
#
# Seen with Pillow 13.0.0 on Python 3.11:
#   8 bits: sample 0 reads as 255, which is white
#   16 bits: sample 0 reads as 0, which is black
# Source: PIL/TiffImagePlugin.py, OPEN_INFO: (II, 0, (1,), 1, (8,), ()) has the raw mode "L;I", and
# (II, 0, (1,), 1, (16,), ()) has "I;16", as with 1 (BlackIsZero).
#
# A way out: subtract the samples from their white where tag_v2[262] is 0 and the mode is I;16 or F.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

import PIL.Image


def tiff(bits):
    """One pixel, whose sample is 0, which is white."""
    tags = {256: 1, 257: 1, 258: bits, 259: 1, 262: 0, 273: 8, 277: 1, 278: 1, 279: bits // 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 10) + b"\0\0" + directory


read = {}
for bits in (8, 16):
    read[bits] = PIL.Image.open(io.BytesIO(tiff(bits))).getpixel((0, 0))
    colour = "black" if read[bits] == 0 else "white"
    print(f"{bits} bits: sample 0 reads as {read[bits]}, which is {colour}")
sys.exit(0 if read == {8: 255, 16: 0} else "The behaviour has changed.")
PYTHON
