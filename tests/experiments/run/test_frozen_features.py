"""Training a head on kept features is training the encoder with its backbone frozen."""

import collections
import contextlib
import io
import json

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs.sweeps import base as sweeps
from experiments.config import datasets, encoders
from experiments.run import evaluating, training
from experiments.run.setup import Setup
from experiments.sweeps import plan, vectorised
from tests.support import configs, stops, tiny_backbone
from triplet_jax import evaluation, models
from triplet_jax.data import images
from triplet_jax.models import encoder_parts, inference, kept_features, principal

SMALL = {
    "model.name": tiny_backbone.PATH,
    "model.width": tiny_backbone.WIDTH,
    "model.dim": 4,
    "model.freeze": "backbone",
    "batch.per_class": 8,
    "train.steps": 6,
    "optimizer.average_decay": 0.9,
    "log.every": 2,
    "augment.rotate": 0.0,
    "augment.scale": 0.0,
    "augment.shift": 0.0,
    "evaluate.every": 3,
    "evaluate.episodes": 5,
}


def _config(folder):
    made = configs.config()
    made.update_from_flattened_dict(
        SMALL
        | {
            "model.weights": str(folder / "tiny.safetensors"),
            "model.features_dir": str(folder / "features"),
        }
    )
    return made


def _nothing(*_, **__):
    raise AssertionError("the backbone was applied")


def _compute_no_features(monkeypatch):
    make_embed = inference.make_embed

    def made(encoder, **settings):
        if isinstance(encoder, encoder_parts.BackboneOf):
            return _nothing
        return make_embed(encoder, **settings)

    monkeypatch.setattr(inference, "make_embed", made)


@pytest.fixture
def config(kept):
    return _config(kept["folder"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run whose head was trained on kept features, with what it printed and wrote."""
    folder = tmp_path_factory.mktemp("frozen")
    tiny_backbone.write(folder / "tiny.safetensors")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        rows, result = _train(_config(folder), folder / "run")
    return {"folder": folder, "rows": rows, "result": result, "printed": printed.getvalue()}


def _train(made, workdir, *, ended=True):
    workdir.mkdir(exist_ok=True)
    training.train(ml_collections.FrozenConfigDict(made), workdir)
    return _outcome(workdir) if ended else None


def _outcome(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((workdir / "result.json").read_text())


@pytest.mark.slow
def test_the_head_learns_from_features_what_it_learns_from_images(
    kept, config, tmp_path, monkeypatch
):
    monkeypatch.setattr(encoders, "keeps_features", lambda _: False)
    rows, plain = _train(config, tmp_path / "through_the_backbone")
    for row, wanted in zip(kept["rows"], rows, strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    score, wanted = (found["embedding"]["retrieval"] for found in (kept["result"], plain))
    assert score == pytest.approx(wanted, abs=0.01)
    score, wanted = (found["frozen_features"]["retrieval"] for found in (kept["result"], plain))
    assert score == pytest.approx(wanted, abs=1e-4)


@pytest.mark.slow
def test_a_head_that_is_stopped_ends_with_the_same_bits(kept, config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stops.stop_after(patch, 4)
        _train(config, tmp_path / "stopped", ended=False)
    _train(config, tmp_path / "stopped")
    stops.assert_same_end(tmp_path / "stopped", kept["folder"] / "run")


@pytest.mark.slow
def test_heads_that_are_trained_together_learn_from_the_same_features(
    kept, config, tmp_path, monkeypatch
):
    _compute_no_features(monkeypatch)
    sweep = sweeps.get_config(config)
    sweep.arms, sweep.reference = (("one", {}), ("two", {"loss.margin": 0.4})), "one"
    sweep.seeds, sweep.claim = (config.seed,), "None."
    planned = plan.plan(sweep, tmp_path)
    vectorised.train_all(planned, sweep, lambda: None)
    rows, result = _outcome(planned[0].folder)
    for row, wanted in zip(rows, kept["rows"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    for column in ("embedding", "frozen_features"):
        wanted = kept["result"][column]["retrieval"]
        assert result[column]["retrieval"] == pytest.approx(wanted, abs=0.01)
    assert _outcome(planned[1].folder)[0] != rows


@pytest.mark.slow
def test_other_programs_embed_images_by_the_weights_of_the_run(kept):
    again = evaluating.evaluate_folder(kept["folder"] / "run")
    for column in ("embedding", "frozen_features"):
        wanted = kept["result"][column]["retrieval"]
        assert again[column]["retrieval"] == pytest.approx(wanted, abs=0.01)


@pytest.mark.slow
def test_a_second_head_computes_no_features_and_reads_all_once(config, tmp_path, monkeypatch):
    _compute_no_features(monkeypatch)
    read = collections.Counter()

    def count(name):
        function = getattr(kept_features, name)

        def counted(*given):
            read[name] += 1
            return function(*given)

        monkeypatch.setattr(kept_features, name, counted)

    for name in ("_digest_of_weights", "_program", "_digests"):
        count(name)
    config.model.dim, config.model.head = 5, "principal"
    _train(config, tmp_path / "second")
    assert read == {"_digest_of_weights": 1, "_program": 1, "_digests": 1}


def test_the_features_alone_are_scored_before_training(kept, config):
    printed, alone = kept["printed"], kept["result"]["frozen_features"]["retrieval"]
    assert f"MAP@R {alone['map_at_r']:.3f} and P@1 {alone['precision_at_1']:.3f} on test" in printed
    assert printed.index("the features alone, before training") < printed.index("raw pixels")
    assert "frozen features" in printed
    # They are those of the weights in the file, by another way.
    tensors, test = tiny_backbone.tensors(), datasets.dataset(config).only("test")
    x = np.repeat(images.load(test.inputs) / np.float32(127.5) - 1, 3, axis=-1)
    patches = x.reshape(len(x), 2, 4, 2, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(x), 4, -1)
    found = patches @ tensors["conv.weight"].reshape(tiny_backbone.WIDTH, -1).T
    found = found + tensors["conv.bias"] - tensors["bn.running_mean"]
    found = found / np.sqrt(tensors["bn.running_var"] + 1e-5)
    found = np.maximum(found * tensors["bn.weight"] + tensors["bn.bias"], 0)
    scores = evaluation.retrieval(found.reshape(len(x), -1), test.labels)
    assert alone["map_at_r"] == pytest.approx(scores["map_at_r"], abs=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"augment.flip": True},
        {"model.freeze": ""},
        {"model.weights": ""},
        {"dataset.turns_as_classes": True},
        {"dataset.mirrored_as_classes": True},
        {"model.towers": 2},
    ],
)
def test_features_are_not_kept_where_an_image_has_more_than_one(fields, config):
    assert encoders.keeps_features(config)
    config.update_from_flattened_dict(fields)
    assert not encoders.keeps_features(config)


@pytest.mark.slow
def test_a_table_of_near_examples_is_of_the_images_that_the_features_stand_for(config, tmp_path):
    config.update_from_flattened_dict({"offline.every": 3, "offline.neighbours": 4})
    _train(config, tmp_path / "mined")
    (table,) = (tmp_path / "mined" / "offline").glob("*.npz")
    config.update_from_flattened_dict({"offline.every": 0, "offline.table": str(table)})
    rows, _ = _train(config, tmp_path / "by_the_table")
    assert rows[-1]["step"] == 6


def test_a_principal_head_is_made_from_the_training_split(config, tmp_path):
    config.model.head = "principal"
    config.update_from_flattened_dict({"augment.flip": True, "model.freeze": ""})
    frozen = ml_collections.FrozenConfigDict(config)
    run = Setup(frozen, tmp_path, datasets.dataset(frozen))
    state = run.initial_state()
    inputs = jnp.asarray(images.load(run.everything.only("train").inputs) / np.float32(255))
    features = run.encoder.apply(state.variables, inputs, method="features")
    wanted = principal.head(np.asarray(features), 4)
    np.testing.assert_allclose(state.params[models.HEAD]["kernel"], wanted["kernel"], atol=1e-4)
    values = features @ state.params[models.HEAD]["kernel"] + state.params[models.HEAD]["bias"]
    np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-4)
