"""The names by which timm and transformers publish the weights of vision transformers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from triplet_jax.models.published import AS_IS, CONV, DENSE, Form, Layout, Part, Path, Stored

Arrays = dict[Path, Stored]

AS_TABLE = Form(lambda x: x[None], lambda x: x[0])
"""Learned positions: [places, hidden] there, [1, places, hidden] here."""
AS_VECTOR = Form(lambda x: x[None, None], lambda x: x[0, 0])
"""A token: [hidden] there, [1, 1, hidden] here."""


@dataclasses.dataclass(frozen=True)
class Names:
    """The names of one layout.

    Args:
      layout: of the layout.
      patch: of the patch embedding.
      tokens: for each of cls_token, pos_embed and reg_token its name and form.
      norm: of the last normalisation.
      block: of a block, with {} for its number; what follows is within a block.
      norms: of the two normalisations.
      queries: how "q", "k" and "v" begin; those that begin alike are one array.
      query_biases: whole names, where biases stand apart; None in it for those that are zero.
      proj: of the map after attention.
      scales: of the two layer scales.
      mlp: of the linear maps; those that begin alike are one array.
      pre_norm: of the normalisation before the first block.
      pool: of the attention pooling: its parts, by our names.
      projection: of the last linear map.
      left_out: see `published.Layout`.
    """

    layout: str
    patch: str
    tokens: Mapping[str, tuple[str, Form]]
    norm: str
    block: str
    norms: tuple[str, str]
    queries: tuple[str, str, str]
    proj: str
    scales: tuple[str, str]
    mlp: Mapping[str, str]
    query_biases: tuple[str | None, ...] | None = None
    pre_norm: str = ""
    pool: Mapping[str, str] = dataclasses.field(default_factory=dict)
    projection: str = ""
    left_out: tuple[str, ...] = ()


MLP = {"fc1": "mlp.fc1.", "fc2": "mlp.fc2."}

TIMM = Names(
    layout="timm",
    patch="patch_embed.proj.",
    tokens={name: (name, AS_IS) for name in ("cls_token", "pos_embed", "reg_token")},
    pre_norm="norm_pre.",
    block="blocks.{}.",
    norms=("norm1.", "norm2."),
    queries=("attn.qkv.",) * 3,
    proj="attn.proj.",
    scales=("ls1.gamma", "ls2.gamma"),
    mlp={**MLP, "gate": "mlp.fc1.", "up": "mlp.fc1.", "down": "mlp.fc2."},
    norm="norm.",
    pool={
        "latent": "attn_pool.latent",
        "q": "attn_pool.q.",
        "k": "attn_pool.kv.",
        "v": "attn_pool.kv.",
        "proj": "attn_pool.proj.",
        "norm": "attn_pool.norm.",
        "mlp": "attn_pool.",
    },
    projection="head.",
    left_out=("head.*",),
)
# timm's class for DINOv3 is Eva. The weights are published with and without the biases of queries
# and values, which are zero.
TIMM_EVA = dataclasses.replace(
    TIMM,
    layout="timm, without biases of queries and values",
    query_biases=(None, None, None),
    scales=("gamma_1", "gamma_2"),
    mlp={**MLP, "gate": "mlp.fc1_g.", "up": "mlp.fc1_x.", "down": "mlp.fc2."},
)
TIMM_EVA_BIASED = dataclasses.replace(
    TIMM_EVA, layout="timm", query_biases=("attn.q_bias", None, "attn.v_bias")
)

HF_VIT = Names(
    layout="transformers",
    patch="embeddings.patch_embeddings.projection.",
    tokens={
        "cls_token": ("embeddings.cls_token", AS_IS),
        "pos_embed": ("embeddings.position_embeddings", AS_IS),
        "reg_token": ("embeddings.register_tokens", AS_IS),
    },
    block="encoder.layer.{}.",
    norms=("layernorm_before.", "layernorm_after."),
    queries=tuple(f"attention.attention.{name}." for name in ("query", "key", "value")),
    proj="attention.output.dense.",
    scales=("", ""),
    mlp={"fc1": "intermediate.dense.", "fc2": "output.dense."},
    norm="layernorm.",
    left_out=("pooler.*", "classifier.*", ".*mask_token"),
)
HF_DINOV2 = dataclasses.replace(
    HF_VIT,
    norms=("norm1.", "norm2."),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
    mlp={
        **MLP,
        "gate": "mlp.weights_in.",
        "up": "mlp.weights_in.",
        "down": "mlp.weights_out.",
    },
)
HF_DINOV3 = dataclasses.replace(
    HF_DINOV2,
    patch="embeddings.patch_embeddings.",
    block="layer.{}.",
    queries=tuple(f"attention.{letter}_proj." for letter in "qkv"),
    proj="attention.o_proj.",
    mlp={
        "fc1": "mlp.up_proj.",
        "fc2": "mlp.down_proj.",
        "gate": "mlp.gate_proj.",
        "up": "mlp.up_proj.",
        "down": "mlp.down_proj.",
    },
    norm="norm.",
)
HF_SIGLIP = Names(
    layout="transformers",
    patch="embeddings.patch_embedding.",
    tokens={"pos_embed": ("embeddings.position_embedding.weight", AS_TABLE)},
    block="encoder.layers.{}.",
    norms=("layer_norm1.", "layer_norm2."),
    queries=tuple(f"self_attn.{letter}_proj." for letter in "qkv"),
    proj="self_attn.out_proj.",
    scales=("", ""),
    mlp=MLP,
    norm="post_layernorm.",
    pool={
        "latent": "head.probe",
        **dict.fromkeys("qkv", "head.attention.in_proj_"),
        "proj": "head.attention.out_proj.",
        "norm": "head.layernorm.",
        "mlp": "head.",
    },
    left_out=("text_model.*", "logit_.*", "text_projection.*", ".*embeddings.position_ids"),
)
HF_CLIP = dataclasses.replace(
    HF_SIGLIP,
    tokens={
        "cls_token": ("embeddings.class_embedding", AS_VECTOR),
        "pos_embed": ("embeddings.position_embedding.weight", AS_TABLE),
    },
    # That is how it is spelt.
    pre_norm="pre_layrnorm.",
    projection="visual_projection.",
)


def _under(prefix: str, names: Names) -> Names:
    """The names of a model that stands in another; what is left out may stand in either."""
    return dataclasses.replace(
        names,
        patch=prefix + names.patch,
        tokens={ours: (prefix + name, form) for ours, (name, form) in names.tokens.items()},
        block=prefix + names.block,
        norm=prefix + names.norm,
        pre_norm=prefix + names.pre_norm if names.pre_norm else "",
        pool={ours: prefix + name for ours, name in names.pool.items()},
        left_out=(*names.left_out, *(prefix + pattern for pattern in names.left_out)),
    )


FAMILIES: dict[str, tuple[Names, ...]] = {
    "vit": (TIMM, HF_VIT, _under("vit.", HF_VIT)),
    "dinov2": (
        TIMM,
        HF_DINOV2,
        *(_under(f"{name}.", HF_DINOV2) for name in ("dinov2", "dinov2_with_registers")),
    ),
    "dinov3": (
        TIMM_EVA,
        TIMM_EVA_BIASED,
        HF_DINOV3,
        dataclasses.replace(HF_DINOV3, block="model.layer.{}."),
    ),
    "siglip": (TIMM, HF_SIGLIP, _under("vision_model.", HF_SIGLIP)),
    "clip": (TIMM, HF_CLIP, _under("vision_model.", HF_CLIP)),
}
"""The layouts in which each family is published."""


def layouts(vit: Any) -> tuple[Layout, ...]:
    """The layouts of a `vit.ViT`, without those that lack a name for one of its parts.

    timm has names for every part, so that there is always one layout.
    """
    return tuple(
        Layout(names.layout, _arrays(vit, names), _left_out(vit, names), _zeros(vit, names))
        for names in FAMILIES[vit.family]
        if _has_all(vit, names)
    )


def _has_all(vit: Any, names: Names) -> bool:
    """Whether a layout has names for all parts of a vision transformer."""
    return (
        names.tokens.keys() >= set(_own_tokens(vit))
        and names.mlp.keys() >= set(_maps(vit))
        and (vit.layer_scale is None or all(names.scales))
        and (not vit.pre_norm or bool(names.pre_norm))
        and (vit.pool != "map" or bool(names.pool))
        and (not vit.output or bool(names.projection))
    )


def _own_tokens(vit: Any) -> tuple[str, ...]:
    """The tokens and the learned positions that a vision transformer has."""
    own = {"cls_token": vit.class_token, "pos_embed": vit.grid, "reg_token": vit.registers}
    return tuple(name for name, has in own.items() if has)


def _maps(vit: Any) -> tuple[str, ...]:
    """The linear maps after attention."""
    return ("gate", "up", "down") if vit.gated else ("fc1", "fc2")


def _left_out(vit: Any, names: Names) -> tuple[str, ...]:
    if names.projection and not vit.output:
        return (*names.left_out, names.projection + "weight")
    # What timm has for a classifier is the projection, here.
    return () if names.layout == TIMM.layout and vit.output else names.left_out


def _zeros(vit: Any, names: Names) -> dict[str, tuple[int, ...]]:
    """timm's last linear map has a bias, which that of CLIP has not."""
    is_timms = names.layout == TIMM.layout and vit.output
    return {names.projection + "bias": (vit.output,)} if is_timms else {}


def _arrays(vit: Any, names: Names) -> Arrays:
    """Every array of a vision transformer, by the names of one layout."""
    arrays = _tokens(vit, names)
    arrays |= _norm(("norm",), names.norm)
    if vit.pre_norm:
        arrays |= _norm(("norm_pre",), names.pre_norm)
    for i in range(vit.blocks):
        arrays |= _block(vit, (f"blocks_{i}",), names, names.block.format(i))
    if vit.pool == "map":
        arrays |= _pool(vit, names.pool)
    if vit.output:
        path = ("params", "projection", "kernel")
        arrays[path] = Stored(names.projection + "weight", DENSE)
    return arrays


def _tokens(vit: Any, names: Names) -> Arrays:
    """The patch embedding, the tokens and the learned positions."""
    arrays = {("params", "patch_embed", "kernel"): Stored(names.patch + "weight", CONV)}
    if vit.patch_bias:
        arrays["params", "patch_embed", "bias"] = Stored(names.patch + "bias")
    for name in _own_tokens(vit):
        arrays["params", name] = Stored(*names.tokens[name])
    if vit.registers and vit.grid and vit.class_token and names is not TIMM:
        # Published with a position of the class token, which timm and we add to the token.
        name, form = names.tokens["pos_embed"]
        places = vit.grid**2 + 1
        arrays["params", "pos_embed"] = Stored(name, form, Part(1, places, places, axis=1))
        position = Stored(name, form, Part(0, 1, places, axis=1))
        arrays["params", "cls_token"] = arrays["params", "cls_token"]._replace(plus=position)
    return arrays


def _block(vit: Any, path: Path, names: Names, prefix: str) -> Arrays:
    arrays = {}
    for i, norm in enumerate(names.norms, 1):
        arrays |= _norm((*path, f"norm{i}"), prefix + norm)
    queries = {letter: prefix + name for letter, name in zip("qkv", names.queries, strict=True)}
    biases = vit.biases if names.query_biases is None else ""
    arrays |= _linear((*path, "attn"), queries, vit.hidden, biases)
    if names.query_biases is not None:
        for letter, bias in zip("qkv", names.query_biases, strict=True):
            if letter in vit.biases:
                whole = None if bias is None else prefix + bias
                arrays["params", *path, "attn", letter, "bias"] = Stored(whole)
    arrays |= _linear((*path, "attn"), {"proj": prefix + names.proj}, vit.hidden)
    if vit.layer_scale is not None:
        for i, scale in enumerate(names.scales, 1):
            arrays["params", *path, f"gamma_{i}"] = Stored(prefix + scale)
    maps = {name: prefix + names.mlp[name] for name in _maps(vit)}
    return arrays | _linear((*path, "mlp"), maps, vit.mlp)


def _pool(vit: Any, names: Mapping[str, str]) -> Arrays:
    path = ("attn_pool",)
    arrays = {("params", *path, "latent"): Stored(names["latent"])}
    arrays |= _norm((*path, "norm"), names["norm"])
    arrays |= _linear(path, {letter: names[letter] for letter in "qkv"}, vit.hidden)
    arrays |= _linear(path, {"proj": names["proj"]}, vit.hidden)
    maps = {name: names["mlp"] + own for name, own in MLP.items()}
    return arrays | _linear((*path, "mlp"), maps, vit.mlp)


def _norm(path: Path, name: str) -> Arrays:
    return {
        ("params", *path, "scale"): Stored(name + "weight"),
        ("params", *path, "bias"): Stored(name + "bias"),
    }


def _linear(path: Path, names: Mapping[str, str], rows: int, biases: str | None = None) -> Arrays:
    """Linear maps; those of one name are one array, each with this number of its rows.

    Args:
      path: of the module that they are in.
      names: how the name of each begins, by ours.
      rows: of each that shares an array.
      biases: which of them have a bias; None for all.
    """
    arrays: Arrays = {}
    for ours, name in names.items():
        same = [other for other, its in names.items() if its == name]
        start = same.index(ours) * rows
        part = Part(start, start + rows, len(same) * rows) if len(same) > 1 else None
        arrays["params", *path, ours, "kernel"] = Stored(name + "weight", DENSE, part)
        if biases is None or ours in biases:
            arrays["params", *path, ours, "bias"] = Stored(name + "bias", AS_IS, part)
    return arrays
