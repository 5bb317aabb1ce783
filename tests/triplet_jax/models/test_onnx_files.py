"""Encoders as .onnx files: without the converter, and by onnxruntime beside ours."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, models
from triplet_jax.models import onnx_files, published, vit
from triplet_jax.models.efficientnet import Stage

ENCODERS = {
    "conv4": (models.encoder("conv4", dim=4, width=8, statistics=published.HALF), (28, 28, 1)),
    "features": (models.encoder("mlp", dim=4, width=8, standardised=True), (7,)),
    "resnet": (
        models.Encoder(models.ResNet((1, 1), False, width=8, stem="7x7"), dim=4),
        (32, 32, 3),
    ),
    "efficientnet": (
        models.Encoder(
            models.EfficientNet((Stage(1, 8, 1, 3, 1), Stage(2, 16, 2, 5, 4)), 8, 24), dim=4
        ),
        (32, 32, 3),
    ),
    "convnext": (models.Encoder(models.ConvNeXt((1, 1), (8, 16)), dim=4), (32, 32, 3)),
    "transformer": (
        models.Encoder(vit.ViT(hidden=24, blocks=2, heads=2, mlp=96, patch=8, grid=4), dim=4),
        (32, 32, 3),
    ),
}


def initialised(name):
    encoder, shape = ENCODERS[name]
    return encoder, encoder.init(jax.random.key(0), jnp.zeros((1, *shape))), shape


def test_without_the_converter_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(errors.InputError, match=r"jax2onnx.*pip install 'triplet_jax\[onnx\]'"):
        onnx_files.write(tmp_path / "one.onnx", *initialised("features"))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ENCODERS)
def test_onnxruntime_embeds_as_we_do(name, tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra onnx, in an environment of its own")
    import onnxruntime

    encoder, variables, shape = initialised(name)
    file = tmp_path / "one.onnx"
    onnx_files.write(file, encoder, variables, shape, metadata={"inputs": {"size": 3}})
    session = onnxruntime.InferenceSession(file)
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["inputs"]) == {"size": 3}
    x = np.random.default_rng(1).uniform(size=(5, *shape)).astype(np.float32)
    wanted = encoder.apply(variables, jnp.asarray(x))
    for rows in (1, 5):
        (found,) = session.run(None, {"inputs": x[:rows]})
        np.testing.assert_allclose(found, wanted[:rows], atol=1e-4)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_a_program_that_embeds_otherwise_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="the extra onnx, in an environment of its own")
    monkeypatch.setattr(onnx_files, "TOLERANCE", -1.0)
    with pytest.raises(errors.InputError, match="gives embeddings that are off by"):
        onnx_files.write(tmp_path / "one.onnx", *initialised("features"))
    assert not list(tmp_path.iterdir())
