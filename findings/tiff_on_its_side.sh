#!/usr/bin/env bash
# An uncompressed TIFF with orientation 5 to 8 reads with other pixels by its name than from its bytes.
#
# Expected: PIL.Image.open("x.tif") and PIL.Image.open(io.BytesIO(content)) give the same picture.
# Happens: opened by its name, a TIFF of one strip is mapped into memory (Image.core.map_buffer) with the size
# that it is shown with, where that which it is stored with is meant. If the orientation (tag 274) is one
# that exchanges width and height, 5 to 8, every row then begins at the wrong place, and the picture that is
# turned upright afterwards is scrambled. No error is raised. From bytes, or compressed, it reads right.
#
# Seen with Pillow 13.0.0 on Python 3.11, for a picture of rows [0, 1, 2] and [3, 4, 5]:
#   orientation 1: by name [[0, 1, 2], [3, 4, 5]], from bytes [[0, 1, 2], [3, 4, 5]]
#   orientation 6: by name [[4, 2, 0], [5, 3, 1]], from bytes [[3, 0], [4, 1], [5, 2]]
# Source: PIL/ImageFile.py, ImageFile.load, which maps with self.size; PIL/TiffImagePlugin.py, which exchanges
# width and height of self.size when the file is opened.
# https://github.com/python-pillow/Pillow/pull/8387 discusses that exchange; no report of this was found.
#
# A way out: open the file, and give the open file to PIL.Image.open.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 numpy==2.3.5
"$folder/venv/bin/python" - "$folder/x.tif" <<'PYTHON'
import io
import pathlib
import sys

import numpy as np
import PIL.Image

path = pathlib.Path(sys.argv[1])
same = {}
for orientation in (1, 6):
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    PIL.Image.fromarray(stored).save(path, "TIFF", tiffinfo={274: orientation})
    by_name = np.asarray(PIL.Image.open(path)).tolist()
    from_bytes = np.asarray(PIL.Image.open(io.BytesIO(path.read_bytes()))).tolist()
    print(f"orientation {orientation}: by name {by_name}, from bytes {from_bytes}")
    same[orientation] = by_name == from_bytes
sys.exit(0 if same == {1: True, 6: False} else "The behaviour has changed.")
PYTHON
