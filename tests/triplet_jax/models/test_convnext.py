"""ConvNeXts: their sizes, their published names, and how they train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import families
from triplet_jax import errors, models
from triplet_jax.models import convnext, published

TINY = functools.partial(models.ConvNeXt, depths=(1, 2), widths=(4, 8))
V2 = functools.partial(TINY, version=2)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("convnext_tiny", 28_589_128),
        pytest.param("convnextv2_base", 88_717_800, marks=pytest.mark.slow),
    ],
)
def test_convnexts_have_the_published_number_of_weights(name, weights):
    """timm's, with a head of 1000."""
    encoder = models.encoder(name, dim=1000, normalize=False)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == weights


@pytest.mark.parametrize("make", [TINY, V2])
def test_every_array_has_a_stage_and_a_name_in_each_layout(make, key):
    families.check_names(make(), key)
    assert list(make().stages()) == ["stem", "stages.0", "stages.1", "head"]


@pytest.mark.parametrize(("make", "layout"), [(TINY, 0), (TINY, 1), (V2, 0)])
def test_weights_by_published_names_give_the_same_variables(make, layout, key):
    backbone = make()
    variables = families.random_variables(backbone, key)
    tensors = published.published(variables, backbone.layouts()[layout])
    filled = published.fill(variables, tensors, backbone.layouts())
    assert filled.layout == backbone.layouts()[layout].name
    jax.tree.map(np.testing.assert_array_equal, filled.variables, variables)


def test_linear_layers_may_be_published_as_convolutions(key):
    backbone = TINY()
    variables = families.random_variables(backbone, key)
    tensors = published.published(variables, backbone.layouts()[0])
    name = "stages.0.blocks.0.mlp.fc1.weight"
    assert tensors[name].shape == (16, 4)
    filled = published.fill(
        variables, tensors | {name: tensors[name][:, :, None, None]}, backbone.layouts()
    )
    jax.tree.map(np.testing.assert_array_equal, filled.variables, variables)


@pytest.mark.parametrize("size", [(7, 64), (64, 7)])
def test_images_of_which_nothing_is_left_are_refused(size, key):
    def features(size):
        return TINY().init_with_output(key, jnp.zeros((1, *size, 3)), False)[0]

    # Their features would be the mean of nothing.
    with pytest.raises(errors.InputError, match=f"{size[0]} x {size[1]} .* smallest size is 8 x 8"):
        jax.eval_shape(lambda: features(size))
    assert jnp.isfinite(features((8, 8))).all()


@pytest.mark.slow
def test_blocks_that_are_computed_anew_change_nothing(key):
    families.check_remat(functools.partial(V2, depths=(1, 1), stochastic_depth=0.5), key)


@pytest.mark.slow
def test_stochastic_depth_draws_by_row(key):
    families.check_stochastic_depth(TINY(depths=(1, 1), stochastic_depth=0.5), key)


@pytest.mark.slow
def test_half_precision_keeps_parameters_and_features_whole(key):
    families.check_half_precision(functools.partial(TINY, depths=(1, 1)), key, most=0.03)


def test_response_norm_of_an_empty_image_has_finite_gradients(key):
    norm = convnext.ResponseNorm()
    params = {"params": {"scale": jnp.ones(3), "bias": jnp.zeros(3)}}
    x = jnp.zeros((2, 4, 4, 3)).at[1].set(1.0)
    gradient = jax.grad(lambda x: norm.apply(params, x).sum())(x)
    assert jnp.isfinite(gradient).all()
    # The norms are equal, so each channel is added to itself.
    np.testing.assert_allclose(norm.apply(params, x)[1], 2.0, rtol=1e-5)


def test_small_sizes_are_published_as_timm_has_them():
    shapes = {}
    for name in ("convnext_nano", "convnext_tiny"):
        backbone = convnext.CONVNEXTS[name](depths=(1, 1), widths=(4, 6))
        variables = families.random_variables(backbone, jax.random.key(0))
        found = published.published(variables, backbone.layouts()[0])
        shapes[name] = found["stages.0.blocks.0.mlp.fc1.weight"].shape
        refilled = published.fill(variables, found, backbone.layouts()).variables
        jax.tree.map(np.testing.assert_array_equal, refilled, dict(variables))
    assert shapes == {"convnext_nano": (16, 4, 1, 1), "convnext_tiny": (16, 4)}
