"""Nearest examples of other classes, against brute force, and the batches drawn from them."""

import dataclasses
import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from hypothesis import given

from configs import digits
from experiments.config import check
from experiments.run import training
from experiments.run.offline_mining import OfflineMining
from triplet_jax import data, errors
from triplet_jax.curricula import offline_negatives
from triplet_jax.data import sampling


# Few sizes, as every one is compiled anew.
@given(
    seed=st.integers(0, 999),
    size=st.sampled_from([(2, 1), (9, 8), (40, 3), (300, 9)]),
    classes=st.integers(1, 6),
)
def test_the_nearest_of_other_classes(seed, size, classes):
    n, neighbours = size
    random = np.random.default_rng(seed)
    # Of whole numbers, so that there are ties and no rounding.
    x = random.integers(0, 6, (n, 3)).astype(np.float32)
    labels = random.integers(0, classes, n) * 7 - 3
    found = offline_negatives.nearest_of_other_classes(x, labels, neighbours=neighbours)
    for i in range(n):
        d = ((x[i].astype(np.float64) - x) ** 2).sum(axis=1)
        others = np.flatnonzero(labels != labels[i])
        expected = others[np.argsort(d[others], kind="stable")][:neighbours]
        assert found[i].tolist() == [*expected, *[-1] * (neighbours - len(expected))]


def table(random, labels, neighbours, holes):
    """Random examples of other classes for each; some are missing."""
    near = np.full((len(labels), neighbours), -1, np.int32)
    for i, label in enumerate(labels):
        others = random.permutation(np.flatnonzero(labels != label))[:neighbours]
        near[i, : len(others)] = others
    return np.where(random.random(near.shape) < holes, -1, near).astype(np.int32)


@given(
    seed=st.integers(0, 2**31 - 1),
    step=st.integers(0, 2**31 - 1),
    holes=st.sampled_from((0, 0.5, 1)),
)
def test_batches_have_near_examples_and_stay_pk_batches(seed, step, holes):
    random = np.random.default_rng(seed)
    sizes = random.permutation([2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 6, 6])  # of one total: one program
    labels = random.permutation(np.repeat(np.arange(12) * 5, sizes))
    index = sampling.class_index(labels).beside(table(random, labels, 4, holes))
    settings = {"classes": 6, "per_class": 3, "near": 2}
    batch = sampling.pk_batch(np, index, seed, step, **settings)
    compiled = _compiled(jax.tree.map(jnp.asarray, index), seed, step)
    np.testing.assert_array_equal(batch, compiled)
    of_classes = labels[batch].reshape(6, 3)
    assert (of_classes == of_classes[:, :1]).all() and len(set(of_classes[:, 0])) == 6
    large = [rows for rows in batch.reshape(6, 3) if (labels == labels[rows[0]]).sum() >= 3]
    assert all(len(set(rows)) == 3 for rows in large)
    if holes == 0:  # The first example has both of its near ones beside it.
        assert np.isin(batch, index.near[batch[0]]).sum() >= 2


_compiled = jax.jit(
    lambda index, seed, step: sampling.pk_batch(
        jnp, index, seed, step, classes=6, per_class=3, near=2
    )
)


def test_a_table_without_neighbours_draws_all_classes_alike():
    labels = np.repeat(np.arange(8), 5)
    index = sampling.class_index(labels).beside(np.full((40, 3), -1, np.int32))
    draw = functools.partial(sampling.pk_batch, jnp, classes=3, per_class=2, near=2)
    batches = jax.jit(jax.vmap(draw, (None, None, 0)))(
        jax.tree.map(jnp.asarray, index), 0, np.arange(4000)
    )
    counts = np.bincount(np.ravel(batches), minlength=40)
    assert abs(counts / 4000 - 6 / 40).max() < 0.02


def examples(n=20, classes=4):
    labels = (np.arange(n) % classes).astype(np.int32)
    names = tuple(f"class {c}" for c in range(classes))
    inputs = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    return data.Dataset(inputs, labels, np.full(n, "train"), names)


def test_a_table_is_refused_for_other_examples_models_and_numbers(tmp_path):
    of = {"examples": examples(), "model": {"name": "mlp", "dim": 4}}
    path, near = tmp_path / "a" / "table.npz", np.arange(60).reshape(20, 3) % 20
    offline_negatives.write(path, near, **of)

    def read(neighbours=3, path=path, **differences):
        return offline_negatives.read(str(path), neighbours=neighbours, **(of | differences))

    np.testing.assert_array_equal(read(2), near[:, :2])
    for field in ("labels", "inputs"):
        other = dataclasses.replace(examples(), **{field: getattr(examples(), field)[::-1]})
        with pytest.raises(errors.InputError, match="belongs to other training examples"):
            read(examples=other)
    with pytest.raises(errors.InputError, match='by another model, {"dim": 4'):
        read(model={"name": "mlp", "dim": 8})
    with pytest.raises(errors.InputError, match=r"has 3 neighbours.*set neighbours=3"):
        read(4)
    offline_negatives.write(path, near + 1, **of)
    with pytest.raises(errors.InputError, match="is damaged"):
        read()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(errors.InputError, match="cannot be read"):
        read()
    with pytest.raises(errors.InputError, match="is not a file"):
        read(path=tmp_path / "none.npz")


def test_a_run_starts_from_the_table_of_another(tmp_path):
    config, near = digits.get_config("semi_hard"), np.arange(60).reshape(20, 3) % 20
    config.offline.update({"table": str(tmp_path / "table.npz"), "neighbours": 3})
    offline_negatives.write(
        tmp_path / "table.npz", near, examples=examples(), model=config.model.to_dict()
    )
    mining = OfflineMining(config, tmp_path / "run", examples())
    np.testing.assert_array_equal(mining.at_start(0), near)
    np.testing.assert_array_equal(mining.at_start(77), near)
    assert not mining.is_due(77)


def test_a_table_of_the_run_that_is_damaged_or_missing_is_said_with_the_way_out(tmp_path):
    config = digits.get_config("offline")
    config.update_from_flattened_dict({"offline.every": 50, "offline.neighbours": 3})
    mining = OfflineMining(config, tmp_path, examples())
    path = tmp_path / "offline" / "step_00000050.npz"
    near = np.zeros((20, 3), np.int32)
    offline_negatives.write(path, near, examples=examples(), model=config.model.to_dict())
    np.testing.assert_array_equal(mining.at_start(60), near)
    path.write_bytes(path.read_bytes()[:100])
    for how in ("damaged", "missing"):
        with pytest.raises(errors.InputError, match=f"{path} is {how}.*checkpoints after step 50"):
            mining.at_start(60)
        path.unlink(missing_ok=True)
    assert mining.at_start(50) is None  # as from such a checkpoint, where it is made anew


def test_a_run_that_is_refused_its_table_leaves_nothing_behind(tmp_path):
    path, config = tmp_path / "table.npz", digits.get_config("semi_hard")
    offline_negatives.write(path, np.zeros((20, 10), np.int32), examples=examples(), model={})
    config.offline.table = str(path)
    with pytest.raises(
        errors.InputError, match="offline.table=.* belongs to other training examples"
    ):
        training.train(ml_collections.FrozenConfigDict(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"offline.near": 11}, "offline.near=11 are drawn from offline.neighbours=10"),
        ({"offline.every": -1}, "offline.every=-1 must be"),
        ({"offline.every": 1000, "train.steps": 1000}, "is not reached within train.steps=1000"),
        ({"batch.pool": 0.5, "batch.order": "random"}, "batch.pool leaves examples out"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    config = digits.get_config("offline")
    config.update_from_flattened_dict(fields)
    with pytest.raises(errors.InputError, match=words):
        check.check(config)


def test_an_example_that_is_not_finite_is_nobodys_neighbour():
    x = np.array([[0.0], [1.0], [np.nan]])
    near = offline_negatives.nearest_of_other_classes(x, np.array([0, 1, 2]), neighbours=2)
    assert near[:2].tolist() == [[1, -1], [0, -1]]


@pytest.mark.parametrize("neighbours", [0, 4])
def test_more_neighbours_than_examples_are_refused(neighbours):
    with pytest.raises(errors.InputError, match=rf"neighbours={neighbours} must be in \[1, 3\]"):
        offline_negatives.nearest_of_other_classes(
            np.zeros((3, 2)), np.array([0, 0, 1]), neighbours=neighbours
        )
