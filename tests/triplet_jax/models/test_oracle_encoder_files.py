"""Exported encoders opened by timm, torchvision and transformers, with the features of ours."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest

from tests.support import families, torch_models
from triplet_jax import models
from triplet_jax.models import encoder_files, published, vit

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="make oracle installs torch")
torchvision = pytest.importorskip("torchvision", reason="make oracle installs torchvision")
timm = pytest.importorskip("timm", reason="make oracle installs timm")
transformers = pytest.importorskip("transformers", reason="make oracle installs transformers")
safetensors = pytest.importorskip("safetensors.torch")

SIZE = 32
DOCS = pathlib.Path(__file__).parents[3] / "docs" / "own_images.md"
RESNET = models.ResNet((2, 2, 2, 2), bottleneck=False, stem="7x7")
VIT = vit.ViT(hidden=24, blocks=2, heads=2, mlp=96, patch=8, grid=SIZE // 8)
CONVNEXT = models.ConvNeXt((1, 1, 2, 1), (8, 8, 16, 16))


def of_timm(name):
    return lambda: timm.create_model(name, num_classes=0)


def of_torchvision():
    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    return model


OPENED = {
    "timm's ResNet": (RESNET, "timm", of_timm("resnet18")),
    "torchvision's": (RESNET, "torchvision", of_torchvision),
    "timm's ConvNeXt": (
        CONVNEXT,
        "timm",
        functools.partial(
            timm.models.convnext.ConvNeXt, num_classes=0, depths=(1, 1, 2, 1), dims=(8, 8, 16, 16)
        ),
    ),
    "timm's transformer": (
        VIT,
        "timm",
        functools.partial(
            timm.models.vision_transformer.VisionTransformer,
            img_size=SIZE,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=2,
            num_classes=0,
        ),
    ),
}


def written(path, backbone, names):
    """An encoder with random weights and statistics, and a file of it."""
    encoder = models.Encoder(backbone, dim=5, statistics=published.IMAGENET)
    variables = families.random_variables(encoder, jax.random.key(0), (SIZE, SIZE, 3))
    inputs = {"mean": encoder.statistics.mean, "std": encoder.statistics.std}
    encoder_files.write(path, encoder, variables, names=names, metadata={"inputs": inputs})
    x = np.random.default_rng(0).uniform(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    apply = jax.jit(functools.partial(encoder.apply, variables), static_argnames="method")
    return x, apply(x, method="features"), apply(x)


def normalised(path, x):
    """The images as the file says that they are expected."""
    inputs = encoder_files.metadata(path)["inputs"]
    x = (x - np.float32(inputs["mean"])) / np.float32(inputs["std"])
    return torch.tensor(x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("library", OPENED)
def test_a_backbone_and_its_head_are_opened_as_published_ones(library, tmp_path):
    backbone, names, make = OPENED[library]
    file = tmp_path / "one.safetensors"
    x, features, embeddings = written(file, backbone, names)
    weights = safetensors.load_file(file)
    head = {n: weights.pop(f"triplet_jax.head.{n}") for n in ("weight", "bias")}
    theirs = make()
    theirs.load_state_dict(weights, strict=True)
    with torch.no_grad():
        found = theirs.eval()(normalised(file, x))
        embedded = torch.nn.functional.normalize(torch.nn.functional.linear(found, **head))
    torch_models.close(features, found.numpy(), 1e-4, "features")
    np.testing.assert_allclose(embeddings, embedded, atol=1e-4)


def test_the_example_of_the_docs_embeds_as_we_do(tmp_path, monkeypatch):
    x, _, embeddings = written(tmp_path / "mine.safetensors", RESNET, "timm")
    (example,) = re.findall("```\n(import json.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    variables = {"images": torch.tensor(x.transpose(0, 3, 1, 2))}
    exec(example, variables)
    np.testing.assert_allclose(embeddings, variables["embeddings"].detach(), atol=1e-4)


def test_transformers_opens_it_from_a_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    x, features, _ = written(file, VIT, "transformers")
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        image_size=SIZE,
        patch_size=8,
        layer_norm_eps=VIT.epsilon,
    )
    config.save_pretrained(tmp_path)
    theirs, said = transformers.ViTModel.from_pretrained(
        tmp_path, add_pooling_layer=False, output_loading_info=True
    )
    assert not said["missing_keys"] and not said["mismatched_keys"]
    assert set(said["unexpected_keys"]) == {f"triplet_jax.head.{n}" for n in ("weight", "bias")}
    with torch.no_grad():
        found = theirs.eval()(normalised(file, x)).last_hidden_state[:, 0]
    torch_models.close(features, found.numpy(), 1e-4, "features")
