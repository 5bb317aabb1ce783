"""The weights of every backbone, opened by other libraries in a process without jax and ours."""

import functools
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.support import every_backbone, families, once
from triplet_jax import models
from triplet_jax.models import encoder_files, encoders, published

pytestmark = pytest.mark.oracle
pytest.importorskip("torch", reason="make oracle installs torch")
pytest.importorskip("timm", reason="make oracle installs timm")
pytest.importorskip("transformers", reason="make oracle installs transformers")

PROGRAM = pathlib.Path(__file__).parents[2] / "support" / "opened_elsewhere.py"
# Runs it where an import of jax or of this library fails.
ELSEWHERE = """
import runpy, sys
sys.modules |= dict.fromkeys(("jax", "flax", "triplet_jax"))
runpy.run_path(sys.argv[1], run_name="__main__")
"""
KINDS = every_backbone.kinds()
LIBRARIES = ("timm", "transformers", "torch")


def opened_by(kind):
    """The libraries that have a backbone; torch runs what nobody publishes."""
    if kind in ("conv4", "mlp"):
        return ("torch",)
    return ("timm", "transformers") if isinstance(KINDS[kind], models.ViT) else ("timm",)


OPENED = [(library, kind) for library in LIBRARIES for kind in KINDS if library in opened_by(kind)]


def write(folder, library, kind):
    """The file of an encoder with random weights by a library's names, inputs and embeddings."""
    shape = every_backbone.input_shape(kind)
    backbone, given = KINDS[kind], {"statistics": published.IMAGENET}
    if isinstance(backbone, models.ResNet):
        # timm has it in its own width alone.
        backbone = encoders.BACKBONES[kind](stem="7x7")
    if len(shape) == 1:
        given = {"standardised": True}
    encoder = models.Encoder(backbone, dim=5, **given)
    variables = families.random_variables(encoder, jax.random.key(0), shape)
    x = np.random.default_rng(0).uniform(size=(3, *shape)).astype(np.float32)
    wanted = jax.jit(functools.partial(encoder.apply, variables))(x)
    said = {}
    if len(shape) == 3:
        said = {"inputs": {"mean": encoder.statistics.mean, "std": encoder.statistics.std}}
    own = folder / f"{library}.{kind}"
    own.mkdir()
    np.save(own / "x.npy", x)
    np.save(own / "wanted.npy", wanted)
    names = "" if library == "torch" else library
    encoder_files.write(own / "model.safetensors", encoder, variables, names=names, metadata=said)


@pytest.fixture(scope="module")
def opened(tmp_path_factory, library):
    """The folder of what a library opens, once another process has embedded by it."""

    def make(folder):
        folder.mkdir()
        for kind in KINDS:
            if library in opened_by(kind):
                write(folder, library, kind)
        program = [sys.executable, "-I", "-c", ELSEWHERE, PROGRAM, folder]
        done = subprocess.run(program, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

    return once.made_once(tmp_path_factory, f"opened_by_{library}", make)


@pytest.mark.parametrize(("library", "kind"), OPENED, scope="module")
def test_it_embeds_as_we_do(library, kind, opened):
    folder = opened / f"{library}.{kind}"
    found, wanted = np.load(folder / "found.npy"), np.load(folder / "wanted.npy")
    assert np.abs(wanted - wanted.mean(axis=0)).max() > 1e-2
    np.testing.assert_allclose(found, wanted, atol=1e-4)
