"""How what tests run is compiled: most of their time goes into compiling what runs once."""

import importlib.metadata

# jax 0.11 has no such flag, and ends a process that is given one that it does not know.
_OLD = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11)
_QUICK = "--xla_cpu_use_fusion_emitters=false " if _OLD else ""

# For functions that tests call: half the time of compiling as for a user, and a sixth of the speed.
FUNCTIONS = f"--xla_backend_optimization_level=0 {_QUICK}"
# For programs that tests start, which take hundreds of steps.
PROGRAMS = f"--xla_backend_optimization_level=1 {_QUICK}"
