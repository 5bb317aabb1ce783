"""Losses that compare each positive with each candidate: what they keep in memory."""

import functools

import jax
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import contrastive
from triplet_jax.engine import terms

NAMES = sorted(name for name, loss in contrastive.LOSSES.items() if terms.is_of_all_pairs(loss))
Y = np.repeat([0, 1, 2], [3, 4, 5])


def rows(seed=0):
    return np.random.default_rng(seed).normal(size=(len(Y), 4)).astype(np.float32)


@pytest.mark.parametrize("name", cases.mostly_slow(NAMES, ["pnp", "positive_aware"]))
def test_positives_at_a_time_change_nothing(monkeypatch, name):
    def found():
        run = functools.partial(contrastive.contrastive_loss, labels=Y, loss=name)
        return jax.jit(jax.value_and_grad(run, has_aux=True))(rows())

    whole = found()
    monkeypatch.setattr(terms, "PAIRS", 2 * len(Y))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, found(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_square_of_the_batch(name):
    def scratch(n):
        run = functools.partial(contrastive.contrastive_loss, labels=np.arange(n) // 4, loss=name)
        step = jax.jit(jax.value_and_grad(run, has_aux=True))
        program = step.lower(jax.ShapeDtypeStruct((n, 4), np.float32)).compile()
        return program.memory_analysis().temp_size_in_bytes

    # An anchor with every candidate as its positive would need 4 n^2 bytes for each array of pairs.
    assert scratch(8192) < 4 * 8192**2
