"""Features with an offset: what the encoder, its normalisation and its export make of them."""

import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import base, saved
from experiments.config import check, datasets, encoders, stepping
from experiments.run import config_json, restoring, training
from triplet_jax import errors, models
from triplet_jax.models import export, standardise


def blobs(offset, scale=1.0, seed=0):
    """Ten overlapping classes of 16 examples with 24 features; the last feature is constant."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(10, 24))
    x = np.repeat(centres, 16, axis=0) + 0.4 * random.normal(size=(160, 24))
    x[:, -1] = 3.0
    return (scale * x + offset).astype(np.float32), np.repeat(np.arange(10), 16)


def config_of(path, **fields):
    config = base.get_config()
    config.dataset.update(name="arrays", path=str(path))
    config.model.update(name="mlp", width=32, dim=8, normalize=True)
    config.batch.update(classes=8, per_class=4)
    config.optimizer.learning_rate = 1e-2
    config.train.steps = 60
    config.evaluate.update(every=60, episodes=10, ways=5)
    config.update_from_flattened_dict(fields)
    return config


def written(tmp_path, x, y):
    path = tmp_path / "x.npz"
    np.savez(path, x=x, y=y)
    return path


@pytest.mark.parametrize("offset", [0.0, -7.0, 1e4, 3e6])
def test_statistics_are_those_of_float64(offset):
    x, _ = blobs(offset)
    found = standardise.statistics(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(
        found["mean"].astype(np.float64) + found["mean_rest"], exact.mean(axis=0), rtol=1e-12
    )
    deviation = exact.std(axis=0)
    constant = deviation <= np.finfo(np.float32).eps * np.abs(exact.mean(axis=0))
    assert constant[-1]
    np.testing.assert_allclose(found["deviation"], np.where(constant, 1, deviation), rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e5])
def test_the_encoder_sees_what_standardising_in_float64_gives(offset, key):
    x = jnp.asarray(blobs(offset)[0])
    encoder = models.encoder("mlp", dim=4, width=8, norm="group", standardised=True)
    plain = models.encoder("mlp", dim=4, width=8, norm="group")
    variables = jax.jit(encoder.init)(key, x)
    measured = {standardise.LAYER: standardise.statistics(np.asarray(x))}
    variables = variables | {"batch_stats": standardise.put(variables["batch_stats"], measured)}
    exact = np.asarray(x, np.float64)
    deviation = exact.std(axis=0)
    seen = (exact - exact.mean(axis=0)) / np.where(deviation < 1e-6, 1, deviation)
    expected = plain.apply({"params": variables["params"]}, jnp.asarray(seen, jnp.float32))
    np.testing.assert_allclose(encoder.apply(variables, x), expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_normalisation_keeps_its_digits_at_a_large_offset(kind, key):
    x = 1e4 + jax.random.normal(key, (16, 6, 6, 8))
    norm = models.make_norm(kind, train=True, axis_name=None)()
    found, _ = norm.apply(norm.init(key, x), x, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    if kind == "batch":
        mean, variance, epsilon = exact.mean(axis=(0, 1, 2)), exact.var(axis=(0, 1, 2)), 1e-5
        expected = (exact - mean) / np.sqrt(variance + epsilon)
    else:
        parts = exact.reshape(16, 6, 6, 2, 4)
        mean = parts.mean(axis=(1, 2, 4), keepdims=True)
        variance = parts.var(axis=(1, 2, 4), keepdims=True)
        expected = ((parts - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    # The mean is a float32, of which the spacing at 10,000 is 0.001.
    np.testing.assert_allclose(found, expected, atol=4e-3)


def test_batch_statistics_over_devices_are_those_of_the_whole_batch(key):
    x = 1e4 + jax.random.normal(key, (8, 12, 5))
    norm = models.make_norm("batch", train=True, axis_name="d")()
    variables = models.make_norm("batch", train=True, axis_name=None)().init(key, x[0])
    of_device = jax.pmap(
        lambda x: norm.apply(variables, x, mutable=["batch_stats"])[0], axis_name="d"
    )
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(axis=(0, 1))) / np.sqrt(exact.var(axis=(0, 1)) + 1e-5)
    np.testing.assert_allclose(of_device(x), expected, atol=4e-3)


def test_pairs_standardise_each_array_that_has_features(tmp_path):
    random = np.random.default_rng(0)
    left = random.normal(1e4, 2.0, (40, 6)).astype(np.float32)
    right = random.integers(0, 256, (40, 2, 2, 1), np.uint8)
    np.savez(tmp_path / "pairs.npz", x=left, pair=right)
    config = config_of(tmp_path / "pairs.npz", **{"dataset.name": "pairs", "model.towers": 2})
    everything = datasets.dataset(config)
    measured = encoders.input_statistics(config, everything)
    train = np.flatnonzero(everything.split[0::2] == "train")
    np.testing.assert_allclose(
        measured["first"][standardise.LAYER]["deviation"], left[train].std(axis=0), rtol=1e-5
    )
    assert measured["second"] == {}
    encoder = encoders.encoder(config, everything.input_shape, everything.pair_shapes)
    state = stepping.initial_state(
        config, encoder, everything.input_shape, {"batch_stats": measured}
    )
    found = state.batch_stats["first"][standardise.LAYER]["deviation"]
    np.testing.assert_array_equal(found, measured["first"][standardise.LAYER]["deviation"])


@pytest.mark.slow
def test_a_run_learns_at_a_large_offset_and_its_export_embeds_alike(tmp_path):
    x, y = blobs(1e4)
    config = config_of(written(tmp_path, x, y))
    check.check(config)
    config = ml_collections.FrozenConfigDict(config)
    workdir = tmp_path / "run"
    workdir.mkdir()
    training.train(config, workdir)
    result = json.loads((workdir / "result.json").read_text())
    assert result["embedding"]["retrieval"]["map_at_r"] > 0.9

    everything = datasets.dataset(config)
    run = restoring.load(workdir, config_json.read(workdir), everything.input_shape)
    _, judged = run.judged()
    embedded = run.embed_with(judged, x)
    with np.load(workdir / "embeddings.npz") as kept:
        np.testing.assert_allclose(kept["embeddings"], embedded, atol=1e-6)
    file = tmp_path / "encoder.jaxexport"
    export.write(file, run.encoder, judged.variables, x.shape[1:], np.float32)
    called = export.load(file).call(x)
    np.testing.assert_allclose(called, embedded, atol=1e-5)


def test_a_run_without_the_field_keeps_its_features_as_they_were(tmp_path):
    content = json.loads(config_of(written(tmp_path, *blobs(0.0))).to_json())
    del content["dataset"]["standardise"]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    config = saved.get_config(str(path))
    assert config.dataset.standardise is False
    assert encoders.input_statistics(config, datasets.dataset(config)) == {}
    assert not encoders.encoder(config, (24,)).standardised
    content["dataset"]["name"] = "digits"
    path.write_text(json.dumps(content))
    assert saved.get_config(str(path)).dataset.standardise is True


def test_the_field_is_refused_where_there_are_no_features():
    config = base.get_config()
    config.dataset.standardise = False
    with pytest.raises(errors.InputError, match="dataset.standardise=False has no effect"):
        check.check(config)
