"""Vision transformers against timm and transformers: tiny ones with random weights."""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import cases
from triplet_jax.models import positions, published, vit, vit_sizes

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

GRID, PATCH = 4, 4
TINY = functools.partial(vit.ViT, hidden=24, blocks=2, heads=2, mlp=96, patch=PATCH, grid=GRID)


class Case(NamedTuple):
    """One of our variants, and its reference."""

    ours: Callable[..., vit.ViT]
    make: Callable[[], "torch.nn.Module"]
    features: Callable = lambda model, x: model(x)


def in_timm(class_name="VisionTransformer", module="timm.models.vision_transformer", **rest):
    make = getattr(importlib.import_module(module), class_name)
    sizes = {"img_size": GRID * PATCH, "patch_size": PATCH, "embed_dim": 24, "depth": 2}
    rest = {"num_heads": 2, "num_classes": 0, "dynamic_img_size": True, **rest}
    return functools.partial(make, **(sizes | rest))


def in_eva(**rest):
    return in_timm(
        "Eva",
        "timm.models.eva",
        global_pool="token",
        init_values=0.1,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        num_reg_tokens=4,
        use_fc_norm=False,
        norm_layer=functools.partial(timm.layers.LayerNorm, eps=1e-5),
        **rest,
    )


def in_transformers(name, config, **rest):
    """A model of transformers, which is made by its configuration."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"image_size": GRID * PATCH, "patch_size": PATCH, **rest}

    def make():
        made = getattr(transformers, config)(**sizes)
        return getattr(transformers, name)(made)

    return make


def in_both_towers(name, config, **vision):
    """A model of transformers that has a text tower too."""
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9}
    text |= {"num_attention_heads": 1, "eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 3}
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"image_size": GRID * PATCH, "patch_size": PATCH, "intermediate_size": 96}

    def make():
        made = getattr(transformers, config)(
            text_config=text, vision_config=sizes | vision, projection_dim=8
        )
        return getattr(transformers, name)(made)

    return make


def pooled(model, x):
    return model(x).pooler_output


def pooled_at_any_size(model, x):
    return model(x, interpolate_pos_encoding=True).pooler_output


DINOV2 = functools.partial(TINY, layer_scale=0.1, family="dinov2")
REGISTERS = functools.partial(DINOV2, registers=4, class_position=False)
DINOV3 = functools.partial(
    TINY, family="dinov3", grid=0, registers=4, biases="qv", layer_scale=0.1, epsilon=1e-5
)
SIGLIP = functools.partial(
    TINY, family="siglip", class_token=False, pool="map", activation="gelu_tanh"
)
CLIP = functools.partial(
    TINY,
    family="clip",
    pre_norm=True,
    patch_bias=False,
    activation="quick_gelu",
    epsilon=1e-5,
    output=8,
)
SWIGLU = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU, "mlp_ratio": 8 / 3}
HF_CLIP = {"hidden_act": "quick_gelu", "intermediate_size": 96}

CASES = {
    "timm plain": Case(TINY, in_timm()),
    "timm mean": Case(
        functools.partial(TINY, pool="mean"), in_timm(global_pool="avg", fc_norm=False)
    ),
    "timm dinov2": Case(DINOV2, in_timm(init_values=0.1)),
    "timm dinov2 gated": Case(
        functools.partial(REGISTERS, gated=True, mlp=32),
        in_timm(init_values=0.1, reg_tokens=4, no_embed_class=True, **SWIGLU),
    ),
    "timm dinov3": Case(DINOV3, in_eva(qkv_bias=False)),
    "timm dinov3 gated": Case(
        functools.partial(DINOV3, gated=True),
        in_eva(qkv_bias=True, swiglu_mlp=True, swiglu_align_to=8),
    ),
    "timm siglip": Case(
        SIGLIP, in_timm(class_token=False, global_pool="map", act_layer="gelu_tanh")
    ),
    "timm clip": Case(
        CLIP,
        in_timm(
            pre_norm=True,
            act_layer="quick_gelu",
            num_classes=8,
            norm_layer=functools.partial(timm.layers.LayerNorm, eps=1e-5),
        ),
    ),
    "transformers plain": Case(
        functools.partial(TINY, antialias=False),
        in_transformers("ViTModel", "ViTConfig", intermediate_size=96, layer_norm_eps=1e-6),
        lambda model, x: model(x, interpolate_pos_encoding=True).last_hidden_state[:, 0],
    ),
    "transformers plain, classifier": Case(
        functools.partial(TINY, antialias=False),
        in_transformers(
            "ViTForImageClassification", "ViTConfig", intermediate_size=96, layer_norm_eps=1e-6
        ),
        lambda model, x: model.vit(x, interpolate_pos_encoding=True).last_hidden_state[:, 0],
    ),
    "transformers dinov2": Case(
        functools.partial(DINOV2, antialias=False),
        in_transformers("Dinov2Model", "Dinov2Config"),
        pooled,
    ),
    "transformers dinov2 gated": Case(
        functools.partial(DINOV2, antialias=False, gated=True, mlp=64),
        in_transformers("Dinov2ForImageClassification", "Dinov2Config", use_swiglu_ffn=True),
        lambda model, x: pooled(model.dinov2, x),
    ),
    "transformers dinov2 with registers": Case(
        REGISTERS,
        in_transformers(
            "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", num_register_tokens=4
        ),
        pooled,
    ),
    "transformers dinov3": Case(
        DINOV3,
        in_transformers(
            "DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4, intermediate_size=96
        ),
        pooled,
    ),
    "transformers dinov3 gated": Case(
        functools.partial(DINOV3, gated=True, mlp=64),
        in_transformers(
            "DINOv3ViTModel",
            "DINOv3ViTConfig",
            num_register_tokens=4,
            intermediate_size=64,
            use_gated_mlp=True,
            hidden_act="silu",
        ),
        pooled,
    ),
    "transformers siglip": Case(
        functools.partial(SIGLIP, antialias=False),
        in_transformers("SiglipVisionModel", "SiglipVisionConfig", intermediate_size=96),
        pooled_at_any_size,
    ),
    "transformers siglip, two towers": Case(
        functools.partial(SIGLIP, antialias=False),
        in_both_towers("SiglipModel", "SiglipConfig"),
        lambda model, x: pooled_at_any_size(model.vision_model, x),
    ),
    "transformers clip": Case(
        functools.partial(CLIP, antialias=False),
        in_transformers(
            "CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=8, **HF_CLIP
        ),
        lambda model, x: model(x, interpolate_pos_encoding=True).image_embeds,
    ),
    "transformers clip, two towers": Case(
        functools.partial(CLIP, antialias=False),
        in_both_towers("CLIPModel", "CLIPConfig", **HF_CLIP),
        lambda model, x: model.visual_projection(pooled_at_any_size(model.vision_model, x)),
    ),
    "transformers clip without projection": Case(
        functools.partial(CLIP, antialias=False, output=0),
        in_transformers("CLIPVisionModel", "CLIPVisionConfig", **HF_CLIP),
        pooled_at_any_size,
    ),
}


def reference(case):
    """The other library's model, each of whose parameters matters."""
    model = case.make().eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, x in model.named_parameters():
            around = 1.0 if x.ndim == 1 and name.endswith("weight") else 0.0
            x.copy_(around + 0.3 * torch.randn(x.shape, generator=draws))
            if name == "head.bias":  # CLIP has none, and timm adds one of zeros
                x.zero_()
    return model


def stored(model, folder):
    """The arrays of a model, by the names under which they are published."""
    if not isinstance(model, transformers.PreTrainedModel):
        return {name: x.detach().numpy() for name, x in model.state_dict().items()}
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    return {name: x.numpy() for name, x in safetensors.load_file(file).items()}


def shapes_of(model, side=GRID * PATCH):
    x = jnp.zeros((1, side, side, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), x, False))


def assert_close(ours, theirs, within, what):
    error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    assert error < within, f"{what}: {error}"


# What another case computes too, by the names of the other library or with one more part.
LIKE_ANOTHER = {"timm dinov2 gated", "timm dinov3 gated", "timm siglip", "timm clip"}
LIKE_ANOTHER |= {"transformers plain", "transformers dinov2", "transformers dinov3"}


# Of a size other than that of its grid, a transformer interpolates its positions, too.
@pytest.mark.parametrize("size", [pytest.param((16, 16), marks=pytest.mark.slow), (12, 24)])
@pytest.mark.parametrize("name", cases.mostly_slow(CASES, CASES.keys() - LIKE_ANOTHER))
def test_features_and_gradients_are_those_of_the_reference(name, size, tmp_path):
    case = CASES[name]
    model, ours = reference(case), case.ours()
    tensors = stored(model, tmp_path / "weights")
    filled = published.fill(shapes_of(ours), tensors, ours.layouts())
    assert filled.layout.startswith(name.split()[0])
    images = np.random.default_rng(0).normal(size=(3, *size, 3)).astype(np.float32)

    x = torch.tensor(images).permute(0, 3, 1, 2).requires_grad_()
    theirs = case.features(model, x)
    weights = np.random.default_rng(1).normal(size=theirs.shape).astype(np.float32)
    (theirs * torch.tensor(weights)).sum().backward()

    def loss(variables, images):
        features = ours.apply(variables, images, False)
        return (features * weights).sum(), features

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, features), (by_params, by_images) = both(filled.variables, images)
    assert features.dtype == jnp.float32
    assert_close(features, theirs.detach().numpy(), 1e-5, "features")
    assert_close(by_images, x.grad.permute(0, 2, 3, 1).numpy(), 1e-4, "gradient of images")
    with torch.no_grad():
        for x in model.parameters():
            x.copy_(torch.zeros_like(x) if x.grad is None else x.grad)
    theirs = stored(model, tmp_path / "gradients")
    layout = layout_of(ours, tensors)
    compared = 0
    for path, array in layout.arrays.items():
        if array.name is None:
            continue
        mine = by_params
        for key in path:
            mine = mine[key]
        expected = array._replace(plus=None).ours(theirs, mine.shape)
        if np.abs(expected).max() < 1e-5:  # a key's bias moves all of a softmax alike
            assert np.abs(mine).max() < 1e-4, path
            continue
        assert_close(mine, expected, 1e-4, path)
        compared += 1
    assert compared > 20


def layout_of(model, tensors):
    """The layout of a file: that with the most names of those whose names are all in it."""
    known = [
        (len(names), one)
        for one in model.layouts()
        if (names := {n for stored in one.arrays.values() for n in stored.names()}) <= set(tensors)
    ]
    return max(known, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("name", CASES)
def test_what_is_published_is_what_was_read(name, tmp_path):
    case = CASES[name]
    ours, tensors = case.ours(), stored(reference(case), tmp_path)
    layout = layout_of(ours, tensors)
    filled = published.fill(shapes_of(ours), tensors, (layout,))
    again = published.published(filled.variables, layout)
    summed = {s.name: s.plus.name for s in layout.arrays.values() if s.plus}
    for their_name, array in again.items():
        if their_name not in (*summed, *summed.values()):
            np.testing.assert_array_equal(array, tensors[their_name])
    assert {*again, *filled.left_out} == set(tensors)
    refilled = published.fill(shapes_of(ours), again, (layout,)).variables
    assert jax.tree.all(jax.tree.map(np.array_equal, refilled, filled.variables))


def test_a_smaller_patch_has_timms_kernel():
    """FlexiViT's resizing, of the kernel alone."""
    kernel = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for size in (8, 14, 32):
        theirs = timm.layers.resample_patch_embed(kernel, [size, size]).permute(2, 3, 1, 0)
        ours = positions.resize_patches(jnp.asarray(kernel.permute(2, 3, 1, 0)), size)
        assert_close(ours, theirs.numpy(), 1e-5, size)


def in_timm_named(name):
    """The name that timm has for one of ours; None where it has none."""
    family, size, patch, *rest = name.replace("_plus", "-plus").split("_")
    size = size.replace("-", "_")
    at = next((part for part in rest if part.isdigit()), "224")
    if family == "vit":
        return f"vit_{size}_patch{patch}_{at}.augreg_in21k_ft_in1k"
    if family == "siglip2":
        # The so400m of 384 pixels has 27 patches a side, which are 378.
        at = "378" if (patch, at) == ("14", "384") else at
        return f"vit_{size}_patch{patch}_siglip_{at}.v2_webli"
    if family == "clip":
        return f"vit_{size}_patch{patch}_clip_quickgelu_{at}.openai"
    registers = "_reg4" if rest else ""
    tag = {"dinov2": "lvd142m", "dinov3": "lvd1689m"}[family]
    return f"vit_{size}_patch{patch}{registers}_{family}.{tag}"


@pytest.mark.parametrize("name", cases.mostly_slow(vit_sizes.VITS, list(vit_sizes.VITS)[::8]))
def test_a_named_one_has_timms_sizes_and_input(name):
    theirs = in_timm_named(name)
    ours = vit_sizes.VITS[name]()
    with torch.device("meta"):
        model = timm.create_model(theirs)
    tensors = {n: np.broadcast_to(np.float32(0), x.shape) for n, x in model.state_dict().items()}
    layout = layout_of(ours, tensors)
    shapes = flax.traverse_util.flatten_dict(shapes_of(ours, ours.patch * 2))
    for path, x in shapes.items():
        layout.arrays[path].ours(tensors, x.shape)
    used = {name for path in shapes for name in layout.arrays[path].names()}
    assert all(layout.leaves_out(name) for name in set(tensors) - used)
    config = timm.get_pretrained_cfg(theirs)
    assert ours.expects.mean == pytest.approx(config.mean)
    assert ours.expects.std == pytest.approx(config.std)
