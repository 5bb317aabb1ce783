"""Encoders in .safetensors files: read as they were written, and opened as weights."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import tiny_backbone
from triplet_jax import errors, models
from triplet_jax.models import encoder_files, published, weight_files

SHAPE = (8, 8, 3)
ENCODERS = {
    "published": models.encoder(tiny_backbone.Tiny, dim=4),
    "with a projection": models.encoder(tiny_backbone.Tiny, dim=4, projection=5),
    "nobody publishes it": models.encoder("conv4", dim=4, width=3),
    "of features": models.encoder("mlp", dim=4, width=3, standardised=True),
    "not so normalised": models.encoder("resnet18", dim=4, width=4, norm="group"),
    "two": models.TwoTowers(
        models.encoder(tiny_backbone.Tiny, dim=4), models.encoder("conv4", dim=4, width=3)
    ),
}


def random_variables(encoder, shape, seed=0):
    like = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, *shape))))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), like)


def assert_same(found, wanted):
    found, wanted = (flax.traverse_util.flatten_dict(x, sep="/") for x in (found, wanted))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_encoder_is_read_bit_for_bit(kind, tmp_path):
    encoder, shape = ENCODERS[kind], (7,) if kind == "of features" else SHAPE
    variables = random_variables(encoder, shape)
    file = tmp_path / "one.safetensors"
    encoder_files.write(file, encoder, variables)
    assert_same(encoder_files.read(file, encoder, shape), variables)


def test_the_backbone_has_its_published_names_and_the_head_those_of_ours(tmp_path):
    encoder = ENCODERS["published"]
    variables = random_variables(encoder, SHAPE)
    file = tmp_path / "one.safetensors"
    said = {"config": {"seed": 0}, "license": "mit", "size": "3", "title": "{draft"}
    assert encoder_files.write(file, encoder, variables, metadata=said) == "tiny"
    tensors = weight_files.read(str(file)).tensors
    theirs = {
        n for n in tiny_backbone.tensors() if n not in ("fc.weight", "bn.num_batches_tracked")
    }
    head = {f"triplet_jax.head.{name}" for name in ("weight", "bias")}
    assert tensors.keys() == theirs | head
    kernel = variables["params"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(tensors["triplet_jax.head.weight"], kernel.T)
    assert encoder_files.metadata(file) == {"format": "pt", "names": "tiny"} | said
    assert weight_files.read(str(file)).licence == "mit"


def test_the_backbone_is_opened_as_published_weights_are(tmp_path):
    encoder = ENCODERS["published"]
    variables = random_variables(encoder, SHAPE)
    file = tmp_path / "one.safetensors"
    encoder_files.write(file, encoder, variables)
    inner = {kind: variables[kind]["backbone"] for kind in ("params", "batch_stats")}
    tensors = weight_files.read(str(file)).tensors
    filled = published.fill(inner, tensors, encoder.backbone.layouts())
    assert_same(filled.variables, inner)
    assert filled.left_out == ("triplet_jax.head.bias", "triplet_jax.head.weight")


@pytest.mark.parametrize(("names", "layout"), [("", "timm"), ("torchvision", "torchvision")])
def test_one_chooses_whose_names_the_backbone_gets(names, layout, tmp_path):
    encoder = models.Encoder(models.ConvNeXt(depths=(1, 1), widths=(4, 6)), dim=3)
    variables = random_variables(encoder, (32, 32, 3))
    file = tmp_path / "one.safetensors"
    assert encoder_files.write(file, encoder, variables, names=names) == layout
    name = "stem.0.weight" if layout == "timm" else "features.0.0.weight"
    assert name in weight_files.read(str(file)).tensors
    assert_same(encoder_files.read(file, encoder, (32, 32, 3)), variables)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("published", r"names='timm'.*Take one of \['tiny'\]"),
        ("nobody publishes it", "names='timm'.*Leave it out"),
        ("not so normalised", "norm='group' has no published weights"),
    ],
)
def test_names_that_do_not_fit_are_refused(kind, words, tmp_path):
    encoder = ENCODERS[kind]
    file = tmp_path / "one.safetensors"
    with pytest.raises(errors.InputError, match=words):
        encoder_files.write(file, encoder, random_variables(encoder, SHAPE), names="timm")
    assert not file.exists()


def test_arrays_that_no_layout_holds_are_refused(tmp_path):
    encoder = ENCODERS["published"]
    variables = random_variables(encoder, SHAPE)
    del variables["params"]["backbone"]["conv"]
    file = tmp_path / "one.safetensors"
    with pytest.raises(errors.InputError, match="conv"):
        encoder_files.write(file, encoder, variables)
    assert not file.exists()


def test_the_file_of_another_encoder_is_refused(tmp_path):
    encoder = ENCODERS["published"]
    file = tmp_path / "one.safetensors"
    encoder_files.write(file, encoder, random_variables(encoder, SHAPE))
    for other, words in [
        (encoder.clone(dim=5), r"head.* has shape .*needs shape"),
        (encoder.clone(projection=5), "Projection_0.* is not there"),
        (models.encoder("resnet18", dim=4, width=4), "arrays are missing"),
        (models.encoder("conv4", dim=4), r"triplet_jax\.\w+\.backbone.* is not there"),
    ]:
        with pytest.raises(errors.InputError, match=words):
            encoder_files.read(file, other, SHAPE)


@pytest.mark.parametrize(
    ("kind", "shape", "less", "left"),
    [
        ("with a projection", SHAPE, {"projection": 0}, "Projection_0"),
        ("of features", (7,), {"standardised": False}, "features"),
    ],
)
def test_a_file_with_more_than_the_encoder_has_is_refused(kind, shape, less, left, tmp_path):
    encoder = ENCODERS[kind]
    file = tmp_path / "one.safetensors"
    encoder_files.write(file, encoder, random_variables(encoder, shape))
    with pytest.raises(errors.InputError, match=rf"no place for triplet_jax\.\w+\.{left}"):
        encoder_files.read(file, encoder.clone(**less), shape)
