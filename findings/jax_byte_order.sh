#!/usr/bin/env bash
# A compiled function of jax reads a big-endian array of numpy in the wrong byte order.
#
# One would expect: jax refuses an array of dtype >f4 with a TypeError, as it does the first time.
# What happens: it is refused only where the function has to be traced. Once the function is compiled for
# native arrays of the same shape, the same call runs on the bytes as they lie, without an error:
# 1.0 is read as 4.6e-41, and the integer 1 as 16777216. This holds for jax.jit and for what is built on
# it, such as jnp.mean and the operators. So a test that begins with the big-endian array sees an error,
# and a program that has seen one native batch before sees numbers.
# Seen with jax 0.10.2 on a CPU, Python 3.11, numpy 2.4. Arrays of HDF5, FITS and IDX files are often
# big-endian; x.astype(x.dtype.newbyteorder("=")) mends them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp
import numpy as np

native = np.array([1.0, 2.0, 4.5], "<f4")
swapped = native.astype(">f4")
assert np.array_equal(native, swapped)  # the same numbers

try:
    jax.jit(lambda x: x + 0)(swapped)
    raise SystemExit("CHANGED: a big-endian array is accepted at the first call")
except TypeError:
    print("before it is compiled: TypeError")

compiled = jax.jit(lambda x: x + 0)
compiled(native)
found = np.asarray(compiled(swapped))
print("after a native array: ", found)
raw = np.frombuffer(swapped.tobytes(), "<f4")
assert np.array_equal(found, raw) and not np.allclose(found, native), "CHANGED"

jnp.mean(native)
print("jnp.mean:             ", jnp.mean(swapped), "for", jnp.mean(native))
assert not np.isclose(jnp.mean(swapped), jnp.mean(native)), "CHANGED"

count = jax.jit(lambda i: i)
count(np.array([1, 2], "<i4"))
print("integers:             ", count(np.array([1, 2], ">i4")))
assert count(np.array([1, 2], ">i4"))[0] == 2**24, "CHANGED"
PY
