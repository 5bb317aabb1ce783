#!/usr/bin/env bash
# antialias=True changes a bicubic enlargement, where there is nothing to antialias.
#
# One would expect: `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` filters an image
# before it is made smaller. An image that is made larger needs no filter, so that both values of
# `antialias` give the same.
#
# What happens (torch 2.13.0, CPU): they differ. The cubic kernel of Keys (1981) has one parameter, a.
# Without antialias a is -0.75, as in OpenCV, and with it -0.5, as in Pillow. Both are constants in
# the source of ATen (UpSample.h and UpSampleKernel.cpp).
#
# It matters for the position embeddings of vision transformers. timm 1.0.31 resamples them with
# antialias, and the DINOv2 of transformers 5.24.0 without, so that the same weights give other
# features for an image that is larger than those of training.
#
# Seen: "a without antialias: -0.7500, with antialias: -0.5000".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

row = torch.zeros(1, 1, 9, 9)
row[0, 0, 4, :] = 1.0


def parameter(antialias):
    """The kernel's a, from its value at a distance of 1.25 pixels."""
    size = (18, 9)
    larger = torch.nn.functional.interpolate(row, size, mode="bicubic", antialias=antialias)
    # Row 6 of the larger image has its centre at (6 + 0.5) / 2 - 0.5 = 2.75 of the first one.
    x = 4 - 2.75
    return float(larger[0, 0, 6, 4]) / (x**3 - 5 * x**2 + 8 * x - 4)


plain, filtered = parameter(False), parameter(True)
print(f"a without antialias: {plain:.4f}, with antialias: {filtered:.4f}")
same = abs(plain + 0.75) < 1e-4 and abs(filtered + 0.5) < 1e-4
sys.exit(0 if same else "the behaviour has changed: both enlarge by the same kernel")
PYTHON
