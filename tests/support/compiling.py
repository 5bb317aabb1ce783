"""How what tests run is compiled: most of their time goes into compiling what runs once."""

import importlib.metadata

_LEVEL = "--xla_llvm_disable_expensive_passes=true --xla_backend_optimization_level="
# What XLA's newer emitters of fusions make of a batch on eight devices and on one differs by more
# than rounding where nothing is optimised (jaxlib 0.10.2). The older emitters take half the time.
_JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
_OLDER_EMITTERS = " --xla_cpu_use_fusion_emitters=false" if _JAXLIB < (0, 11) else ""

# A step of training takes a fifth of the time to compile that it takes a user.
QUICKLY = f"{_LEVEL}0{_OLDER_EMITTERS}"
# Of programs, which train for many steps: half the time to compile, and no longer to run.
FOR_TRAINING = f"{_LEVEL}1{_OLDER_EMITTERS}"
