"""Encoders as .onnx files: without the converter, and by onnxruntime beside ours."""

import json
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import every_backbone, families
from triplet_jax import errors, models
from triplet_jax.models import onnx_files, published

KINDS = every_backbone.kinds()
# A program that has neither jax nor this library.
ELSEWHERE = """
import sys
sys.modules |= dict.fromkeys(("jax", "flax", "triplet_jax"))
import json, numpy, onnxruntime
session = onnxruntime.InferenceSession("one.onnx")
x = numpy.load("x.npy")
found = [session.run(None, {"inputs": x[:rows]})[0] for rows in (1, len(x))]
numpy.savez("found.npz", *found)
print(json.dumps(session.get_modelmeta().custom_metadata_map))
"""


def both_towers():
    """Encoders of images and of features; a row says at its end which of them it is for."""
    images = models.encoder("conv4", dim=4, width=8, statistics=published.HALF)
    features = models.encoder("mlp", dim=4, width=8, standardised=True)
    return models.TwoTowers(images, features, shapes=((8, 8, 1), (7,))), (8 * 8 + 1,)


def by_copies():
    """An encoder that embeds an image by 40 copies of it."""
    encoder = models.encoder("conv4", dim=4, width=8, statistics=published.HALF)
    return models.Augmented(encoder, ("shifts", "turns", "mirror")), (8, 8, 3)


OTHERS = {"both towers": both_towers, "by copies": by_copies}


def initialised(name):
    if name in OTHERS:
        encoder, shape = OTHERS[name]()
        return encoder, families.random_variables(encoder, jax.random.key(0), shape), shape
    shape = every_backbone.input_shape(name)
    given = {"standardised": True} if len(shape) == 1 else {"statistics": published.HALF}
    encoder = models.Encoder(KINDS[name], dim=4, **given)
    return encoder, families.random_variables(encoder, jax.random.key(0), shape), shape


def test_without_the_converter_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(errors.InputError, match=r"jax2onnx.*pip install 'triplet_jax\[onnx\]'"):
        onnx_files.write(tmp_path / "one.onnx", *initialised("mlp"))


class _Graph(types.SimpleNamespace):
    """A converted program with nothing in it."""

    def SerializeToString(self):  # noqa: N802
        return b"program"


@pytest.fixture
def convert(monkeypatch):
    """Has a stand-in for the packages, whose program gives an encoder's embeddings, changed."""

    def convert(encoder, variables, change):
        def run(_, given):
            return [change(np.asarray(encoder.apply(variables, jnp.asarray(given["inputs"]))))]

        said = {}
        props = types.SimpleNamespace(add=lambda key, value: said.update({key: value}))
        graph = _Graph(graph=types.SimpleNamespace(value_info=["of old"]), metadata_props=props)
        packages = {
            "jax2onnx": {"to_onnx": lambda *_, **__: graph},
            "onnx": {"checker": types.SimpleNamespace(check_model=lambda *_, **__: None)},
            "onnxruntime": {"InferenceSession": lambda *_, **__: types.SimpleNamespace(run=run)},
        }
        for name, given in packages.items():
            monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**given))
        monkeypatch.setattr(onnx_files.importlib.metadata, "version", lambda _: "0")
        return graph, said

    return convert


def test_a_program_that_gives_nan_for_one_batch_is_not_written(tmp_path, convert):
    encoder, variables, shape = initialised("mlp")
    convert(encoder, variables, lambda found: found if len(found) > 1 else found * np.nan)
    with pytest.raises(errors.InputError, match="off by nan. It was not written"):
        onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape)
    assert not list(tmp_path.iterdir())


def test_a_program_that_gives_another_number_of_rows_is_not_written(tmp_path, convert):
    encoder, variables, shape = initialised("mlp")
    convert(encoder, variables, lambda found: np.repeat(found, 2, axis=0))
    shapes = re.escape("of shapes [(6, 4), (2, 4)] instead of [(3, 4), (1, 4)]")
    with pytest.raises(errors.InputError, match=shapes):
        onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape)
    assert not list(tmp_path.iterdir())


def test_a_program_that_embeds_alike_is_written_with_what_is_said_of_it(tmp_path, convert):
    encoder, variables, shape = initialised("mlp")
    graph, said = convert(encoder, variables, lambda found: found)
    metadata = {"config": {"seed": 0}, "license": "mit"}
    onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape, metadata=metadata)
    assert (tmp_path / "one.onnx").read_bytes() == b"program"
    assert (json.loads(said["config"]), said["license"]) == ({"seed": 0}, "mit")
    assert not graph.graph.value_info


def test_rounding_grows_with_the_embeddings(tmp_path, convert):
    encoder, variables, shape = initialised("mlp")
    encoder = encoder.clone(normalize=False)
    variables = jax.tree.map(lambda x: 1e3 * x, variables)
    convert(encoder, variables, lambda found: found * np.float32(1 + 1e-5))
    onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape)
    convert(encoder, variables, lambda found: found * np.float32(1 + 1e-3))
    with pytest.raises(errors.InputError, match="off by"):
        onnx_files.write(tmp_path / "two.onnx", encoder, variables, shape)


@pytest.mark.parametrize(
    ("error", "why"),
    [(RuntimeError("no rule\nfor erf"), r"\(no rule\)"), (KeyError(), r"\(KeyError\)")],
)
def test_what_the_converter_does_not_take_is_said_in_a_line(tmp_path, convert, error, why):
    def refuse(_):
        raise error

    encoder, variables, shape = initialised("mlp")
    convert(encoder, variables, refuse)
    with pytest.raises(errors.InputError, match=f"jax2onnx 0 does not convert this .*{why}"):
        onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape)
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_no_file_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_files, "MOST_BYTES", 99)
    with pytest.raises(errors.InputError, match=r"at most 99 bytes.* take \d{3}"):
        onnx_files.write(tmp_path / "one.onnx", *initialised("mlp"))
    assert not list(tmp_path.iterdir())


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*KINDS, *OTHERS])
def test_onnxruntime_embeds_as_we_do(name, tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra onnx, in an environment of its own")
    encoder, variables, shape = initialised(name)
    onnx_files.write(tmp_path / "one.onnx", encoder, variables, shape, metadata={"a": {"size": 3}})
    x = np.random.default_rng(1).uniform(size=(5, *shape)).astype(np.float32)
    if name == "both towers":
        x[:, -1] = np.arange(5) % 2
    np.save(tmp_path / "x.npy", x)
    program = [sys.executable, "-I", "-c", ELSEWHERE]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(json.loads(done.stdout)["a"]) == {"size": 3}
    wanted = np.asarray(encoder.apply(variables, jnp.asarray(x)))
    assert np.abs(wanted - wanted.mean(axis=0)).max() > 1e-2
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["arr_0"], wanted[:1], atol=1e-4)
        np.testing.assert_allclose(found["arr_1"], wanted, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_a_program_that_embeds_otherwise_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="the extra onnx, in an environment of its own")
    monkeypatch.setattr(onnx_files, "TOLERANCE", -1.0)
    with pytest.raises(errors.InputError, match="gives embeddings that are off by"):
        onnx_files.write(tmp_path / "one.onnx", *initialised("mlp"))
    assert not list(tmp_path.iterdir())
