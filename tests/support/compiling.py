"""How what tests run is compiled: most of their time goes into compiling what runs once."""

import importlib.metadata
import threading

_PLAINLY = "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0"
# What XLA's newer emitters of fusions make of a batch on eight devices and on one differs by more
# than rounding where nothing is optimised (jaxlib 0.10.2). The older emitters take half the time.
_JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
_OLDER_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if _JAXLIB < (0, 11) else ""

# To cut a small program into 32 modules takes a quarter of the time to compile it.
_WHOLE = " --xla_cpu_parallel_codegen_split_count=1"

# A step of training takes a seventh of the time to compile that it takes a user.
QUICKLY = f"{_PLAINLY}{_OLDER_EMITTERS}{_WHOLE}"

PROGRAMS_OF_A_CONTEXT = 10
"""How many programs jax writes into one context of MLIR: see `in_few_contexts`."""


def in_few_contexts():
    """Lets jax write ten programs of a thread into one context of MLIR, as jax 0.12 does by itself.

    Before, it makes a context for each program and loads every dialect into it, which takes longer
    than all the rest of lowering a small program. A context keeps the constants of its programs, so
    that none serves forever, and is not for two threads at a time.
    """
    from jax._src.interpreters import mlir

    if _JAXLIB >= (0, 12):
        return
    make, of_thread = mlir.make_ir_context, threading.local()

    def context():
        if getattr(of_thread, "left", 0) == 0:
            of_thread.context, of_thread.left = make(), PROGRAMS_OF_A_CONTEXT
        of_thread.left -= 1
        return of_thread.context

    mlir.make_ir_context = context
