"""Residual networks: their size, their published names, and how they train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import families
from triplet_jax import errors, models
from triplet_jax.models import published

TINY = functools.partial(models.ResNet, stage_sizes=(1, 2), bottleneck=False, width=4, stem="7x7")
TINIER = functools.partial(TINY, stage_sizes=(1, 1))


@pytest.mark.parametrize(
    ("name", "weights"),
    [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)],
)
def test_resnets_have_the_published_number_of_weights(name, weights):
    """torchvision's, with a head of 1000."""
    encoder = models.encoder(name, dim=1000, normalize=False)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == weights


@pytest.mark.parametrize("settings", [{}, {"bottleneck": True, "stage_sizes": (2, 1)}])
def test_every_array_has_a_published_name_and_a_stage(settings, key):
    backbone = TINY(**settings)
    variables = jax.eval_shape(lambda: backbone.init(key, jnp.zeros((1, 8, 8, 3)), False))
    (layout,) = backbone.layouts()
    paths = {
        tuple(entry.key for entry in path)
        for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert paths == layout.arrays.keys()
    names = [name for stored in layout.arrays.values() for name in stored.names()]
    assert len(set(names)) == len(names)
    groups = [group for names in backbone.stages().values() for group in names]
    assert sorted(groups) == sorted(variables["params"])
    assert list(backbone.stages()) == ["stem", "layer1", "layer2"]


def test_weights_by_published_names_give_the_same_features(key):
    backbone, x = TINY(), jax.random.normal(key, (2, 16, 16, 3))
    variables = jax.jit(backbone.init, static_argnums=2)(key, x, False)
    variables = jax.tree.map(lambda v: v + 0.1 * jax.random.normal(key, v.shape) ** 2, variables)
    tensors = published.published(variables, *backbone.layouts())
    assert tensors["layer2.0.downsample.0.weight"].shape == (8, 4, 1, 1)
    extra = {"fc.weight": np.zeros((9, 8), np.float32), "bn1.num_batches_tracked": np.int64(3)}
    filled = published.fill(variables, tensors | extra, backbone.layouts())
    jax.tree.map(np.testing.assert_array_equal, filled.variables, variables)
    assert filled.left_out == ("bn1.num_batches_tracked", "fc.weight")


def test_only_batch_normalisation_has_published_weights():
    with pytest.raises(errors.InputError, match="norm='group' has no published weights"):
        TINY(norm="group").layouts()


def test_the_stem_is_of_a_size_or_by_the_size_of_the_image(key):
    kernels = {}
    for stem in ("7x7", "3x3", "by_size"):
        for size in (8, 64):
            images = jnp.zeros((1, size, size, 3))
            init = functools.partial(TINY(stem=stem).init, key, train=False)
            shapes = jax.eval_shape(init, images)
            kernels[stem, size] = shapes["params"]["Conv_0"]["kernel"].shape[0]
    of_name = {"7x7": (7, 7), "3x3": (3, 3), "by_size": (3, 7)}
    assert kernels == {(s, n): of_name[s][n == 64] for s in of_name for n in (8, 64)}
    with pytest.raises(errors.InputError, match="stem='5x5' is not known"):
        jax.eval_shape(lambda: TINY(stem="5x5").init(key, jnp.zeros((1, 8, 8, 3)), False))


@pytest.mark.slow
def test_blocks_that_are_computed_anew_change_nothing(key):
    x = jax.random.normal(key, (4, 8, 8, 3))
    variables = jax.jit(TINIER().init, static_argnums=2)(key, x, False)
    keys = jax.random.split(key, 4)
    plain, anew = (
        families.trained(TINIER(stochastic_depth=0.5, remat=remat), variables, x, keys)
        for remat in (False, True)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), plain, anew)


def test_frozen_stages_keep_their_statistics(key):
    x = 3 + jax.random.normal(key, (4, 8, 8, 3))
    variables = jax.jit(TINIER().init, static_argnums=2)(key, x, False)
    _, after, _ = families.trained(TINIER(frozen=2), variables, x)
    before = variables["batch_stats"]
    moved = {
        name: any(
            (a != b).any()
            for a, b in zip(jax.tree.leaves(after[name]), jax.tree.leaves(layer), strict=True)
        )
        for name, layer in before.items()
    }
    assert moved == {
        "BatchNorm_0": False,
        "ResidualBlock_0": False,
        "ResidualBlock_1": True,
    }


@pytest.mark.slow
def test_stochastic_depth_skips_later_blocks_and_needs_a_key_for_each_row(key):
    x = jnp.broadcast_to(jax.random.normal(key, (1, 8, 8, 3)), (64, 8, 8, 3))
    backbone = TINY(norm="group", stochastic_depth=0.5)
    variables = jax.jit(backbone.init, static_argnums=2)(key, x, False)
    variables = jax.tree.map(lambda v: v + 0.1, variables)  # no block is the identity
    keys = jax.random.split(key, 64)
    apply = jax.jit(backbone.apply, static_argnums=2)
    rows = np.asarray(apply(variables, x, True, keys))
    # The first of the three blocks is always kept; the others are skipped by one row in 4 and in 2.
    assert len(np.unique(rows.round(3), axis=0)) == 4
    # Keys count where the statistics are fixed, too.
    np.testing.assert_allclose(apply(variables, x, False, keys[::-1]), rows[::-1], rtol=1e-5)
    assert np.ptp(np.asarray(apply(variables, x, False)), axis=0).max() < 1e-5
    with pytest.raises(errors.InputError, match="pass one key for each row"):
        apply(variables, x, True)


def test_rows_skip_blocks_where_statistics_are_fixed(key):
    encoder = models.encoder(TINIER, dim=3, stochastic_depth=0.5, fixed_statistics=True)
    x = jnp.broadcast_to(jax.random.normal(key, (1, 8, 8, 3)), (16, 8, 8, 3))
    variables = jax.jit(encoder.init)(key, x)
    variables = jax.tree.map(lambda v: v + 0.1, variables)  # no block is the identity
    apply = jax.jit(functools.partial(encoder.apply, train=True, mutable=["batch_stats"]))
    rows, after = apply(variables, x, keys=jax.random.split(key, 16))
    assert len(np.unique(rows.round(3), axis=0)) == 2
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"])
    with pytest.raises(errors.InputError, match="keys=None, but stochastic_depth=0.5"):
        apply(variables, x)


@pytest.mark.slow
def test_half_precision_keeps_parameters_statistics_and_features_whole(key):
    x = jax.random.normal(key, (4, 16, 16, 3))
    half = TINIER(dtype=jnp.bfloat16)
    variables = jax.jit(half.init, static_argnums=2)(key, x, False)
    plain, mixed = (families.trained(b, variables, x) for b in (TINIER(), half))
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, mixed))} == {jnp.dtype("float32")}
    error = jnp.linalg.norm(mixed[0] - plain[0]) / jnp.linalg.norm(plain[0])
    assert 0 < float(error) < 0.02
