"""Training: the state, the step, and the loop around it."""

from triplet_jax import errors

if lacking := errors.lacking("triplet_jax.training", "training", "flax", "optax"):
    raise lacking
