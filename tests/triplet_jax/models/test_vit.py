"""Vision transformers: layouts, stages, sizes of images, precision, skipped blocks."""

import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax import errors, models
from triplet_jax.models import published, vit, vit_layouts

TINY = functools.partial(vit.ViT, hidden=8, blocks=2, heads=2, mlp=12, patch=2, grid=2)
VARIANTS = {
    "vit": TINY,
    "dinov2": functools.partial(TINY, family="dinov2", layer_scale=0.1),
    "dinov2 with registers": functools.partial(
        TINY, family="dinov2", layer_scale=0.1, registers=4, class_position=False, gated=True
    ),
    "dinov3": functools.partial(
        TINY, family="dinov3", grid=0, registers=4, biases="qv", layer_scale=0.1
    ),
    "dinov3 gated": functools.partial(
        TINY, family="dinov3", grid=0, registers=4, biases="qv", layer_scale=0.1, gated=True
    ),
    "siglip": functools.partial(TINY, family="siglip", class_token=False, pool="map"),
    "clip": functools.partial(TINY, family="clip", pre_norm=True, patch_bias=False, output=3),
}


def shapes_of(model, side=4):
    x = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, False))


def random_variables(model, seed=0):
    rng = np.random.default_rng(seed)
    draw = functools.partial(rng.normal, 0.1, 0.5)
    return jax.tree.map(lambda x: jnp.float32(draw(size=x.shape)), shapes_of(model))


@pytest.mark.parametrize("name", cases.mostly_slow(VARIANTS, [*VARIANTS][::3]))
def test_each_layout_is_read_as_it_is_published(name):
    model = VARIANTS[name]()
    assert len(model.layouts()) == len(vit_layouts.FAMILIES[model.family])
    for layout in model.layouts():
        flat = flax.traverse_util.flatten_dict(random_variables(model))
        assert set(flat) == set(layout.arrays)
        zero = {path for path, stored in layout.arrays.items() if stored.name is None}
        flat |= {path: np.zeros_like(flat[path]) for path in zero}
        variables = flax.traverse_util.unflatten_dict(flat)
        tensors = published.published(variables, layout)
        filled = published.fill(shapes_of(model), tensors, model.layouts())
        assert filled.layout == layout.name
        assert jax.tree.all(jax.tree.map(np.array_equal, filled.variables, variables))


@pytest.mark.parametrize(
    ("family", "other"),
    [
        ("vit", {"gated": True}),
        ("vit", {"pool": "map"}),
        ("vit", {"layer_scale": 0.1}),
        ("vit", {"pre_norm": True}),
        ("vit", {"output": 3}),
        ("siglip", {"class_token": True}),
        ("siglip", {"registers": 2, "pool": "map", "class_token": False}),
    ],
)
def test_a_layout_that_lacks_a_name_is_left_out(family, other):
    model = TINY(family=family, **other)
    (layout,) = model.layouts()
    assert layout.name == "timm"
    variables = random_variables(model)
    filled = published.fill(shapes_of(model), published.published(variables, layout), (layout,))
    assert jax.tree.all(jax.tree.map(np.array_equal, filled.variables, variables))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_is_in_one_stage(name):
    model = VARIANTS[name]()
    groups = [group for groups in model.stages().values() for group in groups]
    assert sorted(groups) == sorted(shapes_of(model)["params"])
    assert list(model.stages()) == ["embeddings", "blocks.0", "blocks.1", "norm"]


def test_a_position_of_the_class_token_is_added_to_it_where_registers_stand_between():
    model = VARIANTS["dinov2 with registers"]()
    for layout in (layout for layout in model.layouts() if layout.name != "timm"):
        token, places = (layout.arrays["params", name] for name in ("cls_token", "pos_embed"))
        arrays = {("params", "cls_token"): token, ("params", "pos_embed"): places}
        drawn = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
        tensors = {token.name: drawn[:, :1], places.name: drawn[:, 1:]}
        like = {"params": {"cls_token": np.zeros((1, 1, 8)), "pos_embed": np.zeros((1, 4, 8))}}
        alone = dataclasses.replace(layout, arrays=arrays, zeros={})
        found = published.fill(like, tensors, (alone,)).variables["params"]
        position = tensors[places.name]
        np.testing.assert_array_equal(found["cls_token"], tensors[token.name] + position[:, :1])
        np.testing.assert_array_equal(found["pos_embed"], position[:, 1:])


def test_the_mean_is_of_the_patches_alone():
    model = TINY(blocks=0, registers=2, pool="mean")
    variables = random_variables(model)
    x = np.random.default_rng(1).normal(size=(1, 4, 4, 3)).astype(np.float32)
    params = jax.tree.map(np.asarray, variables["params"])
    patches = x.reshape(2, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(4, 12)
    tokens = patches @ params["patch_embed"]["kernel"].reshape(12, 8)
    tokens += params["patch_embed"]["bias"] + params["pos_embed"].reshape(-1, 8)[-4:]
    tokens -= tokens.mean(axis=1, keepdims=True)
    tokens /= np.sqrt(np.square(tokens).mean(axis=1, keepdims=True) + model.epsilon)
    expected = (tokens * params["norm"]["scale"] + params["norm"]["bias"]).mean(axis=0)
    [found] = jax.jit(lambda x: model.apply(variables, x, False))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_weights_of_another_family_are_refused_by_name():
    dinov2, plain = VARIANTS["dinov2"](), VARIANTS["vit"]()
    tensors = published.published(random_variables(dinov2), dinov2.layouts()[0])
    with pytest.raises(errors.InputError, match=r"have no place.*\n  blocks.0.ls1.gamma"):
        published.fill(shapes_of(plain), tensors, plain.layouts())


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("vit_base_16", 85_798_656),
        ("dinov2_base_14", 86_579_712),
        ("siglip2_base_16", 92_884_224),
        ("clip_base_32", 87_849_216),
    ],
)
def test_named_ones_have_the_published_number_of_weights(name, weights):
    """The numbers are timm's, without a classifier and a mask token."""
    model = models.BACKBONES[name]()
    shapes = shapes_of(model, 2 * model.patch)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == weights


@pytest.mark.parametrize(("size", "near"), [((30, 32), "28, 32, 36"), ((2, 2), "4")])
def test_an_image_that_a_patch_does_not_divide_is_refused(size, near):
    model = TINY(patch=4)
    with pytest.raises(errors.InputError, match=f"{size[0]} x {size[1]} .* of 4 x 4.*: {near}"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *size, 3)), False))


def test_unknown_names_are_refused():
    for wrong in ({"pool": "max"}, {"activation": "relu"}):
        with pytest.raises(errors.InputError, match=next(iter(wrong))):
            shapes_of(TINY(**wrong))


@pytest.mark.parametrize("name", ["dinov3 gated", "siglip"])
def test_bfloat16_is_near_float32(name, key):
    make, x = VARIANTS[name], jax.random.normal(key, (4, 6, 4, 3))
    variables = random_variables(make())
    apply = jax.jit(lambda dtype, x: make(dtype=dtype).apply(variables, x, False), static_argnums=0)
    exact, rounded = apply(None, x), apply("bfloat16", x)
    assert rounded.dtype == jnp.float32
    assert 0 < float(abs(exact - rounded).max() / abs(exact).max()) < 0.03


def test_computing_blocks_again_changes_no_gradient(key):
    x, keys = jax.random.normal(key, (3, 4, 4, 3)), jax.random.split(key, 3)

    def slope(model):
        return jax.grad(lambda v: (model.apply(v, x, True, keys) ** 2).sum())

    variables = random_variables(TINY(blocks=1))
    plain, again = (jax.jit(slope(TINY(blocks=1, remat=r)))(variables) for r in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)
    skipping = TINY(remat=True, stochastic_depth=0.5)
    assert "remat" in str(jax.make_jaxpr(slope(skipping))(random_variables(skipping)))


def test_the_same_images_skip_blocks_on_eight_devices(key):
    model = TINY(stochastic_depth=0.8)
    variables, x = random_variables(model), jax.random.normal(key, (16, 4, 4, 3))
    keys = jax.random.split(key, 16)
    one = jax.jit(lambda x, keys: model.apply(variables, x, False, keys))(x, keys)
    each = jax.pmap(lambda x, keys: model.apply(variables, x, True, keys))
    eight = each(x.reshape(8, 2, 4, 4, 3), keys.reshape(8, 2)).reshape(16, -1)
    np.testing.assert_allclose(one, eight, rtol=1e-5, atol=1e-6)
    kept = jax.jit(lambda x: model.apply(variables, x, False))(x)
    changed = abs(one - kept).max(axis=1) > 1e-3
    assert changed.any()


def test_skipping_needs_keys():
    model = TINY(stochastic_depth=0.5)
    with pytest.raises(errors.InputError, match="keys=None"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((2, 4, 4, 3)), True))


def test_patches_of_another_size_keep_the_published_kernel():
    model = TINY(patch=4, published_patch=2)
    assert shapes_of(model, 8)["params"]["patch_embed"]["kernel"].shape == (2, 2, 3, 8)
