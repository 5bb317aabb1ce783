"""Calls a function as one compiled program.

Outside of `jax.jit` each operation is a program of its own, and a loss has hundreds.
"""

import functools

import jax


def compiled(function, *arrays, **settings):
    """`function(*arrays, **settings)`, of which only the arrays are traced."""
    return jax.jit(functools.partial(function, **settings))(*arrays)
