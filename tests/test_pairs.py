"""Two encoders on pairs: the loss between them, the data they are given, and whole runs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import (
    data,
    errors,
    evaluation,
    models,
    sampling,
)

DIM = 5
SPLIT = {"test_fraction": 0.25, "validation_fraction": 0.25, "seed": 0}


def spread(seed, rows, dim=DIM):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


# -- the encoders


def make_towers(norm="batch", axis_name=None):
    first, second = (
        models.encoder("mlp", dim=DIM, norm=norm, width=8, axis_name=axis_name) for _ in range(2)
    )
    return models.TwoTowers(first, second, ((2, 3, 1), (4,)))


def packed(seed, pairs):
    """Rows as `data.pairs` makes them of images of 2 x 3 pixels and of 4 features."""
    x = spread(seed, 2 * pairs, dim=7)
    x[1::2, 4:] = 0
    x[:, -1] = np.arange(2 * pairs) % 2
    return jnp.asarray(x)


@functools.cache
def towers_with_weights():
    towers = make_towers()
    return towers, jax.jit(towers.init)(jax.random.key(0), packed(0, 1)[:1])


def alone(towers, variables, which, x, **how):
    mine = {name: tree[which] for name, tree in variables.items()}
    return getattr(towers, which).apply(mine, x, **how)


def test_each_encoder_sees_its_own_rows_as_they_were():
    towers, variables = towers_with_weights()
    x = packed(1, 6)
    views = {"first": x[0::2, :6].reshape(6, 2, 3, 1), "second": x[1::2, :4]}
    together, updates = towers.apply(variables, x, train=True, mutable=["batch_stats"])
    for turn, (which, view) in enumerate(views.items()):
        expected, stats = alone(towers, variables, which, view, train=True, mutable=["batch_stats"])
        np.testing.assert_allclose(together[turn::2], expected, atol=1e-6)
        # Statistics of its rows alone.
        jax.tree.map(
            np.testing.assert_array_equal, updates["batch_stats"][which], stats["batch_stats"]
        )


def test_in_evaluation_a_row_finds_its_encoder_wherever_it_stands():
    towers, variables = towers_with_weights()
    x = packed(2, 4)
    order = np.array([3, 0, 0, 5, 6, 1])
    found = jax.jit(towers.apply)(variables, x[order])
    expected = np.zeros((8, DIM), np.float32)
    expected[0::2] = alone(towers, variables, "first", x[0::2, :6].reshape(4, 2, 3, 1))
    expected[1::2] = alone(towers, variables, "second", x[1::2, :4])
    np.testing.assert_allclose(found, expected[order], atol=1e-6)


def test_the_encoders_share_no_parameters():
    _, variables = towers_with_weights()
    heads = [variables["params"][which]["Dense_0"]["kernel"] for which in ("first", "second")]
    assert heads[0].shape == heads[1].shape
    assert not np.array_equal(*heads)
    x = packed(3, 6)

    def of_each(params):
        moved = variables | {"params": params}
        embeddings, _ = make_towers().apply(moved, x, train=True, mutable=["batch_stats"])
        return jnp.stack([jnp.sum(embeddings[i::2] * spread(4, 6)) for i in (0, 1)])

    slopes = jax.jit(jax.jacrev(of_each))(variables["params"])
    for row, which in enumerate(("first", "second")):
        for leaf in jax.tree.leaves(slopes[which]):
            assert leaf[row].any() and not leaf[1 - row].any()


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


# -- evaluation


def test_retrieval_goes_both_ways_between_the_two():
    first = np.array([[0.0], [1.0], [2.0], [9.0]], np.float32)
    second = np.array([[0.1], [1.6], [1.9], [9.0]], np.float32)
    found = evaluation.retrieval_of_pairs(first, second, ks=(1, 2))
    # 1.6 is nearer to 2 than to 1, and 1 is nearer to 1.6 than to 0.1.
    assert found["first_to_second"]["recall_at_1"] == 1.0
    assert found["second_to_first"]["recall_at_1"] == 0.75
    assert found["second_to_first"]["recall_at_2"] == 1.0
    mean = found["retrieval"]
    assert mean["recall_at_1"] == mean["map_at_r"] == mean["precision_at_1"] == 0.875
    assert mean["queries"] == 4
