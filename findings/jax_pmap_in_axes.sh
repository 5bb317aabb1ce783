#!/usr/bin/env bash
# jax.pmap gives an argument's axis to another argument where one of them is None.
#
# One would expect: `in_axes` of pmap has one entry an argument, as that of vmap; an argument with the
# entry None is the same on every device.
#
# What happens (jax 0.10.2, 0.11.2 and 0.12.0.1): where the arguments have as many leaves as there are
# arguments, entries are paired with leaves, not with arguments. Take f(x, references, knobs) with
# in_axes=(0, 0, None), as a loss with optional references has it. With references=None and two knobs
# there are three leaves: the first knob gets the entry of the references, and is split over the
# devices. A knob with one value for each device splits without an error, and each device computes with
# another value; a scalar raises an error about sharding. One knob, or three, are as expected, and so is
# vmap. The cause is the shorter path for tuples in `_get_in_axes_flat` of jax/_src/pmap.py, which
# compares lengths alone.
#
# What is right: leave arguments that are None out of the mapped function, by a closure.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 numpy
XLA_FLAGS=--xla_force_host_platform_device_count=2 JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import numpy as np


def scaled(x, references, knobs):
    assert references is None
    return x.sum() * knobs["scale"].sum()


axes = (0, 0, None)
x = np.ones((2, 5), np.float32)
scale = np.array([1, 3], np.float32)
print("jax", jax.__version__)
found = {}
for others in ((), ("shift",), ("shift", "shear")):
    knobs = {"scale": scale} | {name: np.zeros(2, np.float32) for name in others}
    by_vmap = jax.vmap(scaled, in_axes=axes)(x, None, knobs).tolist()
    found[len(knobs)] = jax.pmap(scaled, in_axes=axes)(x, None, knobs).tolist()
    print(f"{len(knobs)} knobs: vmap {by_vmap}, pmap {found[len(knobs)]}")
    assert by_vmap == [20, 20]
expected = {1: [20, 20], 2: [5, 15], 3: [20, 20]}
sys.exit(0 if found == expected else "the behaviour has changed: pmap is as vmap")
PYTHON
