"""The encoder of a run as a file of weights, and what is written beside it."""

import jax
import ml_collections
import numpy as np
import pytest

from configs import base, digits
from experiments.config import completion, datasets
from experiments.run import config_json, exporting, pretrained, restoring, training
from experiments.run.setup import Setup
from tests.support import programs, tiny_backbone
from triplet_jax import errors
from triplet_jax.models import encoder_files

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


def test_names_that_the_backbone_does_not_have_are_refused_by_their_flag(folder, tmp_path):
    file = tmp_path / "mine.safetensors"
    with pytest.raises(errors.InputError, match=r"^--names='timm': .*Take one of \['tiny'\]"):
        exporting.export_encoder(folder / "digits", file, kind="safetensors", names="timm")
    assert not file.exists()


def test_flags_that_do_not_go_together_are_refused(tmp_path):
    given = f"--workdir={tmp_path}"
    done = programs.run("export", given, f"--output={tmp_path}/a.safetensors")
    programs.refused(done, "Give --format=safetensors, or a file named *.jaxexport")
    done = programs.run("export", given, f"--output={tmp_path}/a.jaxexport", "--names=timm")
    programs.refused(done, "--names=timm has no effect with --format=jax")
