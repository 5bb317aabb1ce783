"""Values that are stored for their readers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.xla import storing


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("first", [0.5, 1.0, -np.inf, np.inf, np.nan])
def test_the_values_are_those_of_the_function(first, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = np.array([[first, 2.0]], np.float32)
    found = jax.jit(lambda x: storing.stored(lambda x, y: (x + y, x > y), x, x[0]))(x)
    np.testing.assert_array_equal(found[0], x + x[0])
    np.testing.assert_array_equal(found[1], [[False, False]])


def test_several_at_once():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = jax.vmap(lambda x: storing.stored(jnp.exp, x))(x)
    np.testing.assert_allclose(found, np.exp(x), rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other backends keep a barrier")
def test_readers_do_not_compute_it_again():
    def shifted(x):
        y = storing.stored(lambda x: x * x + 0.5, x)
        return y, y[1:] + y[:-1]

    program = jax.jit(shifted).lower(jnp.ones(100)).compile().as_text()
    assert program.count(" multiply(") == 1
