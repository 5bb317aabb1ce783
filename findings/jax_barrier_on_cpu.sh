#!/usr/bin/env bash
# jax.lax.optimization_barrier does not keep XLA from computing a value again on a CPU.
#
# One would expect: the documentation of jax says that a barrier keeps the compiler from moving
# operations across it. A value behind one is then computed once and stored, and what reads it
# starts from the stored value.
#
# What happens (jax 0.10.2, CPU): XLA removes the barrier before it fuses operations.
# A cheap value with two readers is compiled into both of them, and computed as often as each reads
# it, with the barrier as without; the two programs have the same number of operations. A branch that
# is always taken (`jax.lax.cond` by a condition that is not constant) does what the barrier should:
# nothing is fused into or out of it.
#
# Seen, as the number of fusions that compute the value: plain 2, barrier 2, branch 1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 numpy
cat > "$folder/measure.py" <<'PYTHON'
import jax
import jax.numpy as jnp


def cheap(x):
    return jnp.maximum(x * 3.0 + 1.0, 0.0)


def plain(x):
    return cheap(x)


def barrier(x):
    return jax.lax.optimization_barrier(cheap(x))


def branch(x):
    always = (x[0, 0] < 1) | (x[0, 0] >= 1) | jnp.isnan(x[0, 0])
    return jax.lax.cond(always, cheap, jnp.zeros_like, x)


def computed(value):
    """How often the compiled program has the maximum of which the value is made."""

    def two_readers(x, w):
        y = value(x)
        rows = sum(y[i : i + 200] * w[i] for i in range(5))
        return rows, sum(y[:, i : i + 200] * w[i] for i in range(5))

    shapes = jax.ShapeDtypeStruct((256, 512), jnp.float32), jax.ShapeDtypeStruct((5,), jnp.float32)
    lowered = jax.jit(two_readers).lower(*shapes)
    assert ("optimization_barrier" in lowered.as_text()) == (value is barrier)
    return lowered.compile().as_text().count(" maximum(")


found = {value.__name__: computed(value) for value in (plain, barrier, branch)}
print(jax.__version__, found)
assert found == {"plain": 2, "barrier": 2, "branch": 1}, "the behaviour has changed"
PYTHON
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/measure.py"
