#!/usr/bin/env bash
# XLA's memory-optimised order needs three times the memory of the one for concurrency.
#
# One would expect: with --xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED a compiled
# function needs at most as much memory on a CPU as with CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED,
# and most of all where a person saves memory by `jax.checkpoint`.
#
# What happens (jax 0.12.0.1 and 0.11.2, CPU): so it is for the plain gradient through residual blocks
# of convolutions, 59 MiB in place of 75. With `jax.checkpoint` around each block it is the other way
# round: the gradient needs 18 MiB in the order for concurrency, which is the default here, and 57 in
# the one for memory. That order leaves gradients of kernels for the end, so that the
# activations of all blocks are kept for them. jax 0.10.2 is the opposite (jax_remat_on_cpu.sh): 76
# and 16 MiB. So neither order is right for all versions; `memory_analysis()` of the compiled
# function shows which one is.
#
# Needs Python 3.12 or later, as jax 0.12 does: PYTHON=python3.13 bash findings/jax_memory_scheduler.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.12.0.1 jaxlib==0.12.0.1 numpy
cat > "$folder/measure.py" <<'PYTHON'
import jax
import jax.numpy as jnp

BLOCKS = 8


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def block(x, kernels):
    y = x
    for kernel in kernels:
        y = convolved(y, kernel)
        y = jax.nn.relu((y - y.mean((0, 1, 2))) * jax.lax.rsqrt(y.var((0, 1, 2)) + 1e-5))
    return x + y


def megabytes(wrap):
    def loss(kernels, x):
        for of_block in kernels:
            x = wrap(block)(x, of_block)
        return (x**2).sum()

    kernels = jax.ShapeDtypeStruct((BLOCKS, 3, 3, 3, 16, 16), jnp.float32)
    x = jax.ShapeDtypeStruct((16, 32, 32, 16), jnp.float32)
    compiled = jax.jit(jax.grad(loss)).lower(kernels, x).compile()
    return round(compiled.memory_analysis().temp_size_in_bytes / 2**20)


print(megabytes(lambda f: f), megabytes(jax.checkpoint))
PYTHON
export JAX_PLATFORMS=cpu
measure() {
  XLA_FLAGS="--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_$1" \
    "$folder/venv/bin/python" "$folder/measure.py"
}
read -r plain_concurrent again_concurrent <<< "$(measure CONCURRENCY_OPTIMIZED)"
read -r plain_memory again_memory <<< "$(measure MEMORY_OPTIMIZED)"
echo "order for concurrency: plain $plain_concurrent MiB, jax.checkpoint $again_concurrent MiB"
echo "order for memory:      plain $plain_memory MiB, jax.checkpoint $again_memory MiB"
if ((plain_memory < plain_concurrent && again_memory > 2 * again_concurrent)); then
  exit 0
fi
echo "the behaviour has changed"
exit 1
