"""How what tests run is compiled: most of their time goes into compiling what runs once."""

import importlib.metadata

_PLAINLY = "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level=0"
# What XLA's newer emitters of fusions make of a batch on eight devices and on one differs by more
# than rounding where nothing is optimised (jaxlib 0.10.2). The older emitters take half the time.
_JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
_OLDER_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if _JAXLIB < (0, 11) else ""

# To cut a small program into 32 modules takes a quarter of the time to compile it.
_WHOLE = " --xla_cpu_parallel_codegen_split_count=1"

# A step of training takes a seventh of the time to compile that it takes a user.
QUICKLY = f"{_PLAINLY}{_OLDER_EMITTERS}{_WHOLE}"
