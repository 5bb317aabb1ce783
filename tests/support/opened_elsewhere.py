"""Embeds images by the .safetensors files of a folder, without jax and this library.

    python tests/support/opened_elsewhere.py FOLDER

Each folder in FOLDER is called LIBRARY.KIND and holds model.safetensors and x.npy; found.npy is
written beside them. LIBRARY is timm, transformers or torch, KIND a name in `every_backbone.kinds`.
"""

import functools
import json
import pathlib
import sys

import numpy as np
import safetensors.torch
import torch
from torch.nn import functional

VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
GATED = {"mlp_ratio": 64 / 24}
CLASS = {"global_pool": "token"}
# Where a model of timm computes something else than its authors do, the page of the docs says so.
IN_TIMM = {
    "vit_tiny_16": ("vit_tiny_patch16_224", VIT),
    "dinov2_small_14": ("vit_small_patch14_dinov2", VIT),
    "dinov2_giant_14": ("vit_giant_patch14_dinov2", VIT),
    "dinov2_small_14_reg4": ("vit_small_patch14_reg4_dinov2", VIT),
    "dinov2_giant_14_reg4": ("vit_giant_patch14_reg4_dinov2", VIT),
    "dinov3_small_16": ("vit_small_patch16_dinov3_qkvb", VIT | CLASS | {"mlp_ratio": 4}),
    "dinov3_small_plus_16": ("vit_small_plus_patch16_dinov3_qkvb", VIT | CLASS | GATED),
    "siglip2_base_16": ("vit_base_patch16_siglip_224", VIT | {"act_layer": "gelu_tanh"}),
    "clip_base_32": ("vit_base_patch32_clip_quickgelu_224", VIT | {"num_classes": 8}),
    **{
        name: (name, {"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16)})
        for name in ("convnext_atto", "convnext_tiny", "convnextv2_atto", "convnextv2_tiny")
    },
    "resnet18": ("resnet18", {}),
    "resnet34": ("resnet34", {}),
    "resnet50": ("resnet50", {}),
}
EFFICIENTNETS = {
    "efficientnet_b0": (True, torch.nn.SiLU, "", 1e-5),
    "tf_efficientnet_b0": (True, torch.nn.SiLU, "same", 1e-3),
    "efficientnet_lite0": (False, torch.nn.ReLU6, "same", 1e-3),
    "timm_efficientnet_lite0": (False, torch.nn.ReLU6, "", 1e-5),
}
HIDDEN = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
HIDDEN |= {"image_size": 32, "patch_size": 8}
MLP = {"intermediate_size": 96}
IN_TRANSFORMERS = {
    "vit_tiny_16": ("ViTModel", "ViTConfig", MLP | {"layer_norm_eps": 1e-6}),
    "dinov2_small_14": ("Dinov2Model", "Dinov2Config", {}),
    "dinov2_giant_14": ("Dinov2Model", "Dinov2Config", {"use_swiglu_ffn": True}),
    "dinov2_small_14_reg4": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {"num_register_tokens": 4},
    ),
    "dinov2_giant_14_reg4": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        {"num_register_tokens": 4, "use_swiglu_ffn": True},
    ),
    "dinov3_small_16": ("DINOv3ViTModel", "DINOv3ViTConfig", MLP | {"num_register_tokens": 4}),
    "dinov3_small_plus_16": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {
            "num_register_tokens": 4,
            "intermediate_size": 64,
            "use_gated_mlp": True,
            "hidden_act": "silu",
        },
    ),
    "siglip2_base_16": ("SiglipVisionModel", "SiglipVisionConfig", MLP),
    "clip_base_32": (
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        MLP | {"projection_dim": 8, "hidden_act": "quick_gelu"},
    ),
}


def efficientnet(timm, squeeze, act, padding, epsilon):
    """timm's EfficientNet of two stages."""
    builder = timm.models._efficientnet_builder
    after = "_se0.25" if squeeze else ""
    stages = [[f"ds_r1_k3_s1_e1_c8{after}"], [f"ir_r2_k5_s2_e4_c16{after}"]]
    return timm.models.efficientnet.EfficientNet(
        builder.decode_arch_def(stages),
        num_classes=0,
        num_features=24,
        stem_size=8,
        round_chs_fn=functools.partial(builder.round_channels, multiplier=1.0),
        pad_type=padding,
        act_layer=act,
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=epsilon),
    )


def by_timm(kind, weights, folder):
    """The features of images."""
    import timm  # here, since a folder needs only one of the two libraries

    if kind in EFFICIENTNETS:
        model = efficientnet(timm, *EFFICIENTNETS[kind])
    else:
        name, sizes = IN_TIMM[kind]
        model = timm.create_model(name, **{"num_classes": 0} | sizes)
    model.load_state_dict(weights)
    return model.eval()


def by_transformers(kind, weights, folder):
    """The features of images; the folder gets the configuration of the model."""
    import transformers

    model, config, sizes = IN_TRANSFORMERS[kind]
    getattr(transformers, config)(**HIDDEN | sizes).save_pretrained(folder)
    rest = {"add_pooling_layer": False} if kind == "vit_tiny_16" else {}
    theirs, said = getattr(transformers, model).from_pretrained(
        folder, output_loading_info=True, **rest
    )
    assert said["missing_keys"] <= {"embeddings.mask_token"}, said  # of pretraining alone
    assert not said["mismatched_keys"], said
    assert all(name.startswith("triplet_jax.") for name in said["unexpected_keys"]), said

    def features(x):
        found = theirs.eval()(x)
        if kind == "vit_tiny_16":
            return found.last_hidden_state[:, 0]
        return found.image_embeds if kind == "clip_base_32" else found.pooler_output

    return features


def by_torch(kind, weights, folder):
    """The features by conv4 and the multilayer perceptron, which nobody publishes."""
    given = {n.removeprefix("triplet_jax."): x for n, x in weights.items()}

    def normalised(x, layer):
        mean, var = (given[f"batch_stats.backbone.{layer}.{n}"] for n in ("mean", "var"))
        scale, bias = (given[f"params.backbone.{layer}.{n}"] for n in ("scale", "bias"))
        return functional.relu(functional.batch_norm(x, mean, var, scale, bias, eps=1e-5))

    def conv4(x):
        for block in range(4):
            kernel = given[f"params.backbone.Conv_{block}.kernel"].permute(3, 2, 0, 1)
            x = functional.conv2d(x, kernel, padding=1)
            x = functional.max_pool2d(normalised(x, f"BatchNorm_{block}"), 2)
        return x.permute(0, 2, 3, 1).flatten(1)

    def mlp(x):
        of = {n: given[f"batch_stats.features.{n}"] for n in ("mean", "mean_rest", "deviation")}
        x = (x - of["mean"] - of["mean_rest"]) / of["deviation"]
        for layer in range(2):
            x = x @ given[f"params.backbone.Dense_{layer}.kernel"]
            x = normalised(x, f"BatchNorm_{layer}")
        return x

    return {"conv4": conv4, "mlp": mlp}[kind]


def embed(folder):
    library, _, kind = folder.name.partition(".")
    file = folder / "model.safetensors"
    with safetensors.safe_open(file, "pt") as opened:
        inputs = json.loads(opened.metadata().get("inputs", "{}"))
    weights = safetensors.torch.load_file(file)
    head = {n: weights.pop(f"triplet_jax.head.{n}") for n in ("weight", "bias")}
    x = torch.tensor(np.load(folder / "x.npy"))
    if inputs:
        mean, std = (torch.tensor(inputs[n]).reshape(-1, 1, 1) for n in ("mean", "std"))
        x = (x.permute(0, 3, 1, 2) - mean) / std
    features = {"timm": by_timm, "transformers": by_transformers, "torch": by_torch}
    with torch.no_grad():
        found = features[library](kind, weights, folder)(x)
        found = functional.normalize(functional.linear(found, **head))
    np.save(folder / "found.npy", found.numpy())


if __name__ == "__main__":
    for each in sorted(pathlib.Path(sys.argv[-1]).iterdir()):
        embed(each)
