"""EfficientNets: their sizes, their published names, and how they train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import families
from triplet_jax import errors, models
from triplet_jax.models import efficientnet, efficientnet_layouts, published
from triplet_jax.models.efficientnet import Stage

SIZES = (Stage(1, 4, 1, 3, 1), Stage(2, 8, 2, 3, 2))
TINY = functools.partial(models.EfficientNet, SIZES, stem_width=4, features=12)
LITE = functools.partial(
    efficientnet.EFFICIENTNETS["efficientnet_lite0"], stage_sizes=SIZES, stem_width=4, features=12
)


@pytest.mark.parametrize(
    ("name", "weights"), [("efficientnet_b0", 5_288_548), ("efficientnet_lite0", 4_652_008)]
)
def test_efficientnets_have_the_published_number_of_weights(name, weights):
    """timm's, with a head of 1000."""
    encoder = models.encoder(name, dim=1000, normalize=False)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == weights


@pytest.mark.parametrize("make", [TINY, LITE])
def test_every_array_has_a_stage_and_a_name_in_each_layout(make, key):
    families.check_names(make(), key)
    assert list(make().stages()) == ["stem", "blocks.0", "blocks.1", "head"]


@pytest.mark.parametrize("layout", range(3))
def test_weights_by_published_names_give_the_same_variables(layout, key):
    backbone = TINY()
    variables = families.random_variables(backbone, key)
    chosen = backbone.layouts()[layout]
    tensors = published.published(variables, chosen)
    filled = published.fill(variables, tensors, backbone.layouts())
    assert filled.layout == chosen.name
    jax.tree.map(np.testing.assert_array_equal, filled.variables, variables)


def test_unknown_settings_are_refused():
    x = jnp.zeros((1, 8, 8, 3))
    for setting in ({"padding": "valid"}, {"activation": "gelu"}):
        with pytest.raises(errors.InputError, match="is not known"):
            jax.eval_shape(lambda s=setting: TINY(**s).init(jax.random.key(0), x, False))
    with pytest.raises(errors.InputError, match="norm='group' has no published weights"):
        TINY(norm="group").layouts()


def test_padding_is_at_the_end_or_on_both_sides(key):
    """At an even size a kernel of 3 with a stride of 2 pads one row: the last, or the first."""
    x = jax.random.normal(key, (1, 8, 8, 3))
    kernel = jax.random.normal(key, (3, 3, 3, 4))
    for padding, pads in (("same", (0, 1)), ("symmetric", (1, 1))):
        backbone = TINY(padding=padding)
        variables = jax.eval_shape(lambda b=backbone: b.init(key, x, False))
        variables = jax.tree.map(lambda v: jnp.ones(v.shape), variables)
        variables["params"]["conv_stem"]["kernel"] = kernel
        stem = functools.partial(
            backbone.apply, capture_intermediates=lambda module, _: module.name == "conv_stem"
        )
        _, state = jax.jit(stem, static_argnums=2)(variables, x, False)
        found = state["intermediates"]["conv_stem"]["__call__"][0]
        expected = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), (pads, pads), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_that_are_computed_anew_change_nothing(key):
    sizes = (Stage(2, 4, 1, 3, 1),)
    families.check_remat(functools.partial(LITE, stage_sizes=sizes, stochastic_depth=0.5), key)


def test_frozen_stages_keep_their_statistics(key):
    moved = families.moved_statistics(LITE(frozen=2), key)
    assert moved == {
        "norm_stem": False,
        "blocks_0_0": False,
        "blocks_1_0": True,
        "blocks_1_1": True,
        "norm_head": True,
    }


def test_stochastic_depth_draws_by_row(key):
    families.check_stochastic_depth(TINY(stochastic_depth=0.5), key)


def test_half_precision_keeps_parameters_statistics_and_features_whole(key):
    families.check_half_precision(LITE, key, most=0.03)


def test_a_larger_kernel_is_no_matrix():
    kernel = np.arange(6.0).reshape(2, 3, 1, 1)
    np.testing.assert_array_equal(efficientnet_layouts._matrix(kernel), kernel[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"no 1 x 1 kernel: \(2, 3, 3, 3\)"):
        efficientnet_layouts._matrix(np.zeros((2, 3, 3, 3)))
