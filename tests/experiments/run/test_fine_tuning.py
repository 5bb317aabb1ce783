"""A whole fine-tuned run: on one device and on eight, stopped and resumed, and in every program."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import base, photos
from experiments.run import config_json, data_json, embedders, exporting, restoring, training
from tests.support import own_images, programs, stops, tiny_residual
from triplet_jax.data import images
from triplet_jax.models import export
from triplet_jax.runs import row_files

JOINS, STEPS = 3, 6
FIELDS = {
    "dataset.split_by": "image",
    "dataset.image_size": 16,
    "dataset.validation_fraction": 0.3,
    "batch.classes": 4,
    "batch.per_class": 4,
    "model.name": tiny_residual.PATH,
    "model.width": 4,
    "model.dim": 8,
    "model.stem": "3x3",
    "model.freeze": "stem",
    "model.fixed_statistics": False,
    "model.stochastic_depth": 0.5,
    "optimizer.backbone_start": JOINS,
    "optimizer.warmup_steps": 2,
    "optimizer.average_decay": 0.5,
    "optimizer.learning_rate": 0.01,
    "train.steps": STEPS,
    "log.every": 1,
    "log.telemetry_every": 0,
    "evaluate.every": STEPS,
    "evaluate.episodes": 5,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, weights, and the run `left_alone`, on eight devices."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    own_images.paint(folder / "images")
    tiny_residual.write(folder / "weights.safetensors")
    train(folder, "left_alone")
    return folder


def fields(folder, **others):
    named = {name.replace("__", "."): value for name, value in others.items()}
    paths = {"dataset.path": folder / "images", "model.weights": folder / "weights.safetensors"}
    return FIELDS | {name: str(path) for name, path in paths.items()} | named


def train(folder, name, **others):
    made = base.with_differences(photos.get_config("fine_tuned"), fields(folder, **others))
    (folder / name).mkdir(exist_ok=True)
    training.train(ml_collections.FrozenConfigDict(made), folder / name)
    return folder / name


@pytest.mark.slow
def test_one_device_takes_the_steps_of_eight(folder):
    named = {name.replace(".", "__"): value for name, value in fields(folder).items()}
    variant = "configs/photos.py:fine_tuned"
    done = programs.run("train", f"--workdir={folder / 'one'}", config=variant, **named)
    assert done.returncode == 0, done.stderr
    one, eight = (
        [row for row in row_files.read_rows(folder / name / "metrics.jsonl") if "loss" in row]
        for name in ("one", "left_alone")
    )
    assert len(eight) == STEPS
    for row, wanted in zip(one, eight, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    found, wanted = stops.embeddings(folder / "one"), stops.embeddings(folder / "left_alone")
    np.testing.assert_allclose(found, wanted, atol=2e-5)


@pytest.mark.slow
def test_a_run_stopped_before_and_after_the_backbone_joins_ends_with_the_same_bits(
    folder, monkeypatch, capsys
):
    for step in (JOINS - 1, JOINS + 2):
        with monkeypatch.context() as patch:
            stops.stop_after(patch, step)
            train(folder, "stopped")
        assert f"saved at step {step} of" in capsys.readouterr().out
    train(folder, "stopped")
    stops.assert_same_end(folder / "stopped", folder / "left_alone")


@pytest.mark.slow
def test_every_program_embeds_in_half_precision_as_evaluation_does(folder):
    short = {"train__steps": 3, "optimizer__backbone_start": 0, "augment__policy": ""}
    workdir = train(folder, "half", model__dtype="bfloat16", **short)
    evaluated = stops.embeddings(workdir)
    config = config_json.read(workdir)
    inputs = data_json.open_data(workdir, config).inputs
    embedder = embedders.load_embedder(workdir)  # of embed and of search
    assert embedder.form == inputs.form
    pixels = images.load(inputs)
    exporting.export_encoder(workdir, folder / "one.jaxexport")
    exported = export.load(folder / "one.jaxexport").call(pixels)
    for found in (embedder.embed(embedder.variables, inputs), exported):
        np.testing.assert_allclose(found, evaluated, atol=1e-4)
    # Unit vectors: the cosine with what float32 makes of the same weights.
    run = restoring.load(workdir, config, inputs.shape[1:])
    whole = run.encoder.clone(backbone=run.encoder.backbone.clone(dtype=None))
    _, state = run.judged()
    wanted = jax.jit(whole.apply)(state.variables, jnp.asarray(pixels / np.float32(255)))
    assert not np.array_equal(wanted, evaluated)
    np.testing.assert_allclose(np.sum(wanted * evaluated, axis=1), 1, atol=2e-3)
