"""How what tests run is compiled: most of their time goes into compiling what runs once."""

# More than a third less time than as for a user. Level 0 would take half, but what its code makes
# of a batch on eight devices and on one differs by more than rounding (jaxlib 0.10.2).
QUICKLY = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
