"""Two encoders on pairs: the loss between them, the data they are given, and whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import (
    data,
    errors,
    sampling,
)

DIM = 5
SPLIT = {"test_fraction": 0.25, "validation_fraction": 0.25, "seed": 0}


def spread(seed, rows, dim=DIM):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


# -- the data


def save(tmp_path, **arrays):
    path = tmp_path / "pairs.npz"
    np.savez(path, **arrays)
    return str(path)


def test_pairs_are_examples_in_turns_that_no_split_tears_apart(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), dtype=np.uint8)
    features = spread(0, 20, dim=4).astype(np.float64)
    found = data.pairs(save(tmp_path, x=pixels, pair=features), **SPLIT)
    assert found.pair_shapes == ((2, 3, 1), (4,))
    assert found.inputs.shape == (40, 7)
    assert found.inputs.dtype == np.float32
    np.testing.assert_allclose(found.inputs[0::2, :6], pixels.reshape(20, 6) / 255, rtol=1e-6)
    np.testing.assert_allclose(found.inputs[1::2, :4], features, rtol=1e-6)
    assert not found.inputs[1::2, 4:6].any()
    np.testing.assert_array_equal(found.inputs[:, -1], np.arange(40) % 2)
    np.testing.assert_array_equal(found.labels, np.arange(40) // 2)
    np.testing.assert_array_equal(found.split[0::2], found.split[1::2])
    assert [(found.split == split).sum() for split in data.SPLITS] == [20, 10, 10]
    assert found.only("test").pair_shapes == found.pair_shapes


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((4, 2)), "y": np.zeros(4, int)}, r"lacks \['pair'\]"),
        ({"x": np.ones((4, 2)), "pair": np.ones((3, 2))}, "x has 4 rows and pair has 3"),
        ({"x": np.ones((4, 2)), "pair": np.ones((4, 2), int)}, "pair has shape .4, 2. and dtype"),
        ({"x": np.ones((4, 2, 2, 2), np.uint8), "pair": np.ones((4, 2))}, "x has shape"),
        ({"x": np.ones((2, 2)), "pair": np.array([[1.0], [np.nan]])}, "of pair have.*row 1"),
        ({"x": np.array([{}, {}]), "pair": np.ones((2, 2))}, "cannot be read"),
    ],
)
def test_arrays_that_are_no_pairs_are_refused(arrays, message, tmp_path):
    with pytest.raises(errors.InputError, match=message):
        data.pairs(save(tmp_path, **arrays), **SPLIT)


@pytest.mark.parametrize("xp", [np, jnp])
def test_a_batch_has_whole_pairs_in_their_order(xp):
    """The encoders take turns by place, so that the sampler must keep it."""
    index = sampling.class_index(np.arange(60) // 2)
    index = sampling.ClassIndex(*map(xp.asarray, index))
    draw = functools.partial(sampling.pk_batch, xp, classes=8, per_class=2)
    draw = jax.jit(draw) if xp is jnp else draw
    for step in range(20):
        batch = np.asarray(draw(index, 3, step))
        np.testing.assert_array_equal(batch[0::2] % 2, 0)
        np.testing.assert_array_equal(batch[1::2], batch[0::2] + 1)
