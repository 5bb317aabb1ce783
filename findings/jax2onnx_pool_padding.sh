#!/usr/bin/env bash
# jax2onnx: a flax max_pool with padding by numbers is converted as one without padding, and no error.
#
# Expected: `max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))` of flax.linen, the
# pooling behind the first convolution of every ResNet, becomes an ONNX MaxPool with the same padding, or
# the conversion is refused.
#
# Seen (jax2onnx 0.17.1, jax 0.10.2, flax 0.12.8, onnx 1.23.2, onnxruntime 1.32.0, Linux x86-64): the file
# passes onnx.checker, and has a MaxPool that pads nothing. An 8 x 8 image becomes 3 x 3 and not 4 x 4:
#
#   padding by numbers: flax (1, 4, 4, 1), onnxruntime (1, 3, 3, 1)
#   padded before:      flax (1, 4, 4, 1), onnxruntime (1, 4, 4, 1), largest difference 0.0
#
# Where a mean over the image follows, as in a ResNet, the shapes agree again, and only the numbers are
# wrong. Pad with -inf by jnp.pad, and pool without padding; and compare the outputs of every file.
#
# Source: jax2onnx puts a primitive of its own in the place of flax.linen.max_pool while it traces. It turns
# `padding` into a text, and whatever is not "SAME" is converted as "VALID":
# jax2onnx/plugins/flax/linen/max_pool.py of https://github.com/enpasos/jax2onnx
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax2onnx==0.17.1 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 \
    onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from jax2onnx import to_onnx


def by_numbers(x):
    return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def padded_before(x):
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    return nn.max_pool(x, window_shape=(3, 3), strides=(2, 2))


image = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
shapes = []
for name, pool in (("padding by numbers:", by_numbers), ("padded before:     ", padded_before)):
    model = to_onnx(pool, [image.shape])
    path = f"{sys.argv[1]}/pool.onnx"
    onnx.save(model, path)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path)
    wanted = np.asarray(pool(image))
    (found,) = session.run(None, {session.get_inputs()[0].name: image})
    same = found.shape == wanted.shape
    difference = f", largest difference {np.abs(found - wanted).max()}" if same else ""
    print(f"{name} flax {wanted.shape}, onnxruntime {found.shape}{difference}")
    shapes.append(found.shape)
if shapes != [(1, 3, 3, 1), (1, 4, 4, 1)]:
    sys.exit("The behaviour has changed.")
PYTHON
