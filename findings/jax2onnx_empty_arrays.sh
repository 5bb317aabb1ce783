#!/usr/bin/env bash
# jax2onnx: an empty array becomes one of size 1, so that jnp.pad(mode="edge") also pads what is not to be padded.
#
# Expected: `jnp.pad(x, ((0, 0), (1, 1)), mode="edge")` of `[rows, 4]` is `[rows, 6]`, in the converted program too.
#
# Seen (jax2onnx 0.17.1, jax 0.10.2, onnx 1.23.2, onnxruntime 1.32.0, Linux x86-64): two more rows, copies of the
# first and the last. onnx.checker passes the program, and sees it with `full_check=True` alone. For images, the
# channels and the batch grow likewise:
#
#   mode="edge": jax (3, 6), onnxruntime (5, 6)
#   repeated 0 times: jax (3, 4), onnxruntime (3, 5)
#   an index, clipped: jax (3, 6), onnxruntime (3, 6), largest difference 0.0
#
# Repeat a border by jnp.take with a clipped index, and compare the outputs of every file, and their shapes.
#
# Source: jax joins each axis with its edge, repeated as often as it is to be padded, which may be 0 times; the
# repetition is a reshape to a size of 0. A 0 in the shape of ONNX's Reshape stands for the size that the axis had,
# unless the attribute `allowzero` is set (https://onnx.ai/onnx/operators/onnx__Reshape.html), which the converter
# leaves out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from jax2onnx import to_onnx


def by_pad(x):
    return jnp.pad(x, ((0, 0), (1, 1)), mode="edge")


def by_repeat(x):
    return jnp.concatenate([x, jnp.repeat(x[:, :1], 0, axis=1)], axis=1)


def by_index(x):
    return jnp.take(x, np.clip(np.arange(-1, 5), 0, 3), axis=1)


x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
shapes = []
for name, function in (
    ('mode="edge"', by_pad),
    ("repeated 0 times", by_repeat),
    ("an index, clipped", by_index),
):
    model = to_onnx(function, [("B", 4)])
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    wanted = np.asarray(function(x))
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    same = found.shape == wanted.shape
    difference = f", largest difference {np.abs(found - wanted).max()}" if same else ""
    print(f"{name}: jax {wanted.shape}, onnxruntime {found.shape}{difference}")
    shapes.append(found.shape)
if shapes != [(5, 6), (3, 5), (3, 6)]:
    sys.exit("The behaviour has changed.")
PYTHON
