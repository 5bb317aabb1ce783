"""The encoder of a run as a file of weights, and what is written beside it."""

import shutil
import sys

import jax
import ml_collections
import numpy as np
import pytest

from configs import base, digits
from experiments.config import completion, datasets
from experiments.run import (
    cards,
    config_json,
    embedders,
    evaluating,
    exporting,
    pretrained,
    restoring,
    training,
)
from experiments.run.setup import Setup
from tests.support import tiny_backbone
from triplet_jax import errors
from triplet_jax.models import encoder_files, export
from triplet_jax.runs import files

STEPS = 2
SMALL = {
    "model.name": tiny_backbone.PATH,
    "model.width": tiny_backbone.WIDTH,
    "model.dim": 4,
    "batch.per_class": 4,
    "train.steps": STEPS,
    "evaluate.every": STEPS,
    "evaluate.episodes": 5,
    "optimizer.decay": "constant",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on grey digits, from weights with a licence."""
    folder = tmp_path_factory.mktemp("exported")
    weights = tiny_backbone.write(folder / "tiny.safetensors", license="mit")
    (folder / "digits").mkdir()
    training.train(of_digits({"model.weights": str(weights)}), folder / "digits")
    return folder


def of_digits(fields):
    made = base.with_differences(digits.get_config("semi_hard"), SMALL | fields)
    return ml_collections.FrozenConfigDict(completion.completed(made))


def restored(workdir, shape=(8, 8, 1)):
    run = restoring.load(workdir, config_json.read(workdir), shape)
    return run.encoder, run.judged()[1].variables


@pytest.fixture(scope="module")
def exported(folder):
    file = folder / "mine.safetensors"
    done = exporting.export_encoder(folder / "digits", file, kind="safetensors")
    assert (done.step, done.names) == (STEPS, "tiny")
    return file


def test_a_file_of_weights_holds_the_judged_encoder(folder, exported):
    encoder, variables = restored(folder / "digits")
    found = encoder_files.read(exported, encoder, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, found, dict(variables))


def test_the_file_says_what_it_expects_and_where_it_is_from(exported):
    said = encoder_files.metadata(exported)
    assert said["inputs"] == {
        "size": [8, 8],
        "channels": 1,
        "range": [0.0, 1.0],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    assert said["embedding"] == {"dim": 4, "unit_length": True}
    assert said["config"]["dataset"]["name"] == "digits"
    assert said["step"] == str(STEPS)
    assert said["versions"]["triplet_jax"] and said["versions"]["jax"]
    assert said["weights"]["source"].endswith("tiny.safetensors")
    assert said["license"] == "mit"


def test_a_run_starts_from_an_exported_backbone(folder, exported):
    config = of_digits({"model.weights": str(exported)})
    run = Setup(config, folder, datasets.dataset(config))
    found = pretrained.given(config, run.encoder, (8, 8, 1))
    _, variables = restored(folder / "digits")
    for kind in ("params", "batch_stats"):
        theirs = variables[kind]["backbone"]
        jax.tree.map(np.testing.assert_array_equal, found.variables[kind]["backbone"], theirs)
    assert found.record["left_out"] == ["triplet_jax.head.bias", "triplet_jax.head.weight"]
    assert found.record["licence"] == "mit"


def test_copies_of_an_image_are_embedded_wherever_the_run_is_judged(folder, tmp_path):
    """The scores, the embedder of other programs, and the exported program are of one encoder."""
    workdir, file = tmp_path / "copies", tmp_path / "mine.jaxexport"
    shutil.copytree(folder / "digits", workdir)
    changes = ("shifts", "turns")
    weights = str(folder / "tiny.safetensors")
    made = of_digits({"model.weights": weights, "evaluate.augment": changes})
    config_json.update(workdir, made, STEPS)
    result = evaluating.evaluate_folder(workdir)
    assert result["protocol"]["augment"].endswith("several copies: shifts, turns")
    (embeddings,) = files.read_arrays(str(workdir / "embeddings.npz"), ["embeddings"])
    expected, pixels = embeddings[:5], datasets.dataset(made).inputs[:5]
    assert expected.shape == (5, 4 * 4)
    embedder = embedders.load_embedder(workdir)
    np.testing.assert_allclose(embedder.embed_pixels(pixels), expected, atol=1e-6)
    assert embedder.mark != embedders.load_embedder(folder / "digits").mark
    done = exporting.export_encoder(workdir, file)
    np.testing.assert_allclose(export.load(file).call(pixels), expected, atol=1e-6)
    words = "embeddings of 16 values, of copies changed by shifts and turns, of length 1"
    assert words in done.card.read_text()
    assert "not those of this file" not in done.card.read_text()
    weights = exporting.export_encoder(workdir, tmp_path / "w.safetensors", kind="safetensors")
    card = weights.card.read_text()
    assert "embeddings by several copies of each image, which are not those of this file.\n" in card
    files.write_json(workdir / "result.json", files.read_json(folder / "digits" / "result.json"))
    card = exporting.export_encoder(workdir, file).card.read_text()
    assert "embeddings by each image as it is, which are not those of this file. `python" in card


def test_names_that_the_backbone_does_not_have_are_refused_by_their_flag(folder, tmp_path):
    file = tmp_path / "mine.safetensors"
    with pytest.raises(errors.InputError, match=r"^--names='timm': .*Take one of \['tiny'\]"):
        exporting.export_encoder(folder / "digits", file, kind="safetensors", names="timm")
    assert not file.exists()


def test_without_a_converter_the_message_names_the_flags(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    with pytest.raises(errors.InputError, match=r"^--output=.*jax2onnx.*--format=safetensors"):
        exporting.export_encoder(folder / "digits", tmp_path / "mine.onnx", kind="onnx")
    assert not list(tmp_path.iterdir())


# -- the card ----------------------------------------------------------------------------


def test_a_card_says_what_the_file_is_and_what_is_known_of_it(folder, exported):
    card = exported.with_name("card.md").read_text()
    assert card.startswith("# mine.safetensors\n")
    for words in (
        "The encoder of the run `digits` at step 2.",
        "The backbone has the names of tiny",
        "images of 8 x 8 pixels, grey, with values from 0 to 1",
        "the mean 0.5, 0.5, 0.5 and the deviation 0.5, 0.5, 0.5; a grey image becomes 3 equal",
        "embeddings of 4 values, of length 1",
        "test: 539 examples of 10 classes",
        "| `dataset.name` | `digits` |",
        "| `train.steps` | `2` |",
        "test: 539 examples of 10 classes, the classes of training",
        "few shot: nearest prototype",
        "licence: mit",
        f"jax {jax.__version__}",
    ):
        assert words in card, words
    result = files.read_json(folder / "digits" / "result.json")
    score = result["embedding"]["few_shot_1"]
    assert f"| 5-way 1-shot | {score['accuracy']:.3f} ± {score['ci95']:.3f} |" in card


def test_the_card_of_a_program_says_how_long_jax_reads_it(folder, exported, tmp_path):
    before = exported.with_name("card.md").read_text()
    done = exporting.export_encoder(folder / "digits", folder / "mine.jaxexport")
    # That of the other file in this folder stays.
    assert done.card == folder / "mine.jaxexport.card.md"
    assert exported.with_name("card.md").read_text() == before
    card = done.card.read_text()
    assert f"written by jax {jax.__version__}: {export.PROMISE}" in card
    assert "six months" in card and "Keep the folder of the run" in card


def test_the_card_of_onnx_says_how_it_is_opened(folder, tmp_path, monkeypatch):
    """What it holds is compared in `tests/triplet_jax/models`."""
    monkeypatch.setattr(
        exporting.onnx_files, "write", lambda output, *given, **rest: output.write_bytes(b"onnx")
    )
    done = exporting.export_encoder(folder / "digits", tmp_path / "mine.onnx", kind="onnx")
    assert (done.step, done.names) == (STEPS, "")
    card = done.card.read_text()
    assert "It needs onnxruntime alone" in card
    assert 'session = onnxruntime.InferenceSession("mine.onnx")' in card


def test_a_card_says_what_the_folder_of_the_run_does_not_tell(folder, exported, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    notes = encoder_files.metadata(exported) | {"step": 4, "use": "", "weights": None}
    card = cards.page(workdir, exported, notes)
    assert "the run was not evaluated. `python -m experiments.evaluate --workdir=run`" in card
    assert "trained from random weights" in card
    of_run = {"source": "runs/one", "sha256": "0" * 64, "weights": {"source": "tiny.safetensors"}}
    card = cards.page(workdir, exported, notes | {"weights": of_run})
    assert "source: `runs/one`" in card and "licence: none is stated" in card
    assert "that run began with `tiny.safetensors`" in card
    result = files.read_json(folder / "digits" / "result.json")
    files.write_json(workdir / "result.json", result)
    assert "These are of step 2, not of this encoder." in cards.page(workdir, exported, notes)
    files.write_json(workdir / "result.json", result | {"embedding": 3})
    assert "was not evaluated" in cards.page(workdir, exported, notes)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"shape": [5], "standardised": True},
            "features of shape 5; the encoder standardises them by statistics of its own",
        ),
        (
            {
                "size": [64, 64],
                "channels": 3,
                "mean": [0.0] * 3,
                "std": [1.0] * 3,
                "resample": "bicubic",
                "crop_ratio": 0.875,
                "fit": "crop",
                "background": 255,
                "invert": False,
            },
            "made square by `crop` and scaled by `bicubic`, and the middle 0.875 of a side",
        ),
    ],
)
def test_the_card_says_what_is_done_to_inputs(inputs, words, exported, tmp_path):
    embedding = {"dim": 4, "unit_length": False}
    notes = encoder_files.metadata(exported) | {"use": "", "weights": None}
    one = cards.page(tmp_path, exported, notes | {"inputs": inputs, "embedding": embedding})
    assert f"- {words}" in one or words in one
    assert "embeddings of 4 values, of any length" in one
    two = {"inputs": {"first": inputs, "second": inputs}}
    two |= {"embedding": {"first": embedding, "second": embedding}}
    assert "second encoder: embeddings of 4 values" in cards.page(tmp_path, exported, notes | two)
