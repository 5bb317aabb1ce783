#!/usr/bin/env bash
# jax2onnx: jnp.concatenate along a batch of free size is traced with the rows of its first array alone.
#
# Expected: `jnp.concatenate([x, y])` of two batches `[B, 4]` is traced as `[2*B, 4]`, as jax.export does it, and
# jax2onnx itself with `jax.lax.concatenate`. Test-time augmentation joins images and their mirror images so, and
# averages what the model makes of both.
#
# Seen (jax2onnx 0.17.1, jax 0.10.2, onnx 1.23.2, onnxruntime 1.32.0, Linux x86-64): the trace has `[B, 4]`. A mean
# over the two copies is then a mean over one. The program passes onnx.checker, and gives two rows for one image:
#
#   jnp.concatenate: traced (B, 4), mean over copies (1, 4) in jax, (2, 4) in onnxruntime
#   lax.concatenate: traced (2*B, 4), mean over copies (1, 4) in jax, (1, 4) in onnxruntime
#
# Join batches by jax.lax.concatenate, and compare the outputs of every file, and their shapes.
#
# Source: jax2onnx puts a primitive of its own in the place of jnp.concatenate while it traces. Its shape rule adds
# the sizes up where all are numbers, and takes the first where one is not:
# jax2onnx/plugins/jax/numpy/concatenate.py of https://github.com/enpasos/jax2onnx
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
from jax import lax
from jax2onnx import to_onnx

JOINS = {
    "jnp.concatenate": lambda copies: jnp.concatenate(copies),
    "lax.concatenate": lambda copies: lax.concatenate(copies, dimension=0),
}
traced, seen = [], []


def mean_over_copies(x):
    joined = join([x, 3 * x])
    traced.append(str(joined.shape))
    return joined.reshape(-1, x.shape[0], x.shape[1]).mean(axis=0)


image = np.ones((1, 4), np.float32)
for name, join in JOINS.items():
    model = to_onnx(mean_over_copies, [("B", 4)])
    shape = traced[-1]
    # The shapes of intermediate arrays are of the trace: with them, onnxruntime refuses to run the program.
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: image})
    wanted = mean_over_copies(image)
    print(
        f"{name}: traced {shape}, mean over copies {wanted.shape} in jax, {found.shape} in onnxruntime"
    )
    seen.append((shape, wanted.shape, found.shape))
if seen != [("(B, 4)", (1, 4), (2, 4)), ("(2*B, 4)", (1, 4), (1, 4))]:
    sys.exit("The behaviour has changed.")
PYTHON
