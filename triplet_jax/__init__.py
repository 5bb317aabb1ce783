"""Triplet losses, triplet mining and the experiments around them, in JAX.

Import the module you need; nothing is imported here, so that
`from triplet_jax import losses` loads jax and no data, checkpoint or plotting library.
"""

__version__ = "0.1.0"
