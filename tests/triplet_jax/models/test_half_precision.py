"""Backbones that compute in bfloat16 stay near float32, and keep float32 where it matters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import models


@pytest.mark.parametrize(
    ("name", "shape", "norm"),
    cases.mostly_slow(
        [
            (name, shape, norm)
            for name, shape in (("conv4", (12, 12, 3)), ("mlp", (20,)))
            for norm in models.NORMS
        ],
        [("conv4", (12, 12, 3), "batch"), ("mlp", (20,), "group")],
    ),
)
def test_bfloat16_is_near_float32(name, shape, norm, key):
    full = models.encoder(name, dim=8, width=16, norm=norm)
    half = models.encoder(name, dim=8, width=16, norm=norm, dtype=jnp.bfloat16)
    x = jax.random.normal(key, (16, *shape))
    variables = jax.jit(full.init)(key, x)
    made = jax.eval_shape(half.init, key, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(made))

    def embedded(encoder):
        apply = functools.partial(encoder.apply, train=True, mutable=["batch_stats"])
        found, after = jax.jit(apply)(variables, x)
        return found, after.get("batch_stats", {})

    (found, after), (wanted, wanted_after) = embedded(half), embedded(full)
    assert found.dtype == jnp.float32
    assert not np.array_equal(found, wanted)
    # Unit vectors: bfloat16 has 8 bits, and the layers add up their errors.
    np.testing.assert_allclose(np.sum(found * wanted, axis=1), 1, atol=2e-3)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(wanted_after), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.01)
