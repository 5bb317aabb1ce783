"""Kept features: equal to those computed now, computed once, and never of another thing."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from triplet_jax import models
from triplet_jax.data import images
from triplet_jax.models import encoder_parts, inference, kept_features


@pytest.fixture
def encoder():
    return models.encoder("conv4", dim=3, width=4, freeze="backbone")


@pytest.fixture
def variables(encoder, key):
    return jax.jit(encoder.init)(key, jnp.zeros((1, 8, 8, 1)))


@pytest.fixture
def files(tmp_path):
    draw = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path in paths:
        PIL.Image.fromarray(draw.integers(0, 256, (9, 9), np.uint8)).save(path)
    return paths


@pytest.fixture
def computed(monkeypatch):
    """How many inputs were embedded at each call."""
    counts, make = [], inference.make_embed

    def counting(*args, **given):
        embed = make(*args, **given)

        def counted(variables, inputs):
            counts.append(len(inputs))
            return embed(variables, inputs)

        return counted

    monkeypatch.setattr(inference, "make_embed", counting)
    return counts


def _read(files, size=8, **form):
    form = images.ImageForm(size, 1, **form)
    return images.Images([str(file) for file in files], form)


def test_features_are_those_of_the_backbone_and_are_computed_once(
    encoder, variables, files, computed, tmp_path
):
    inputs = _read(files)
    folder = tmp_path / "kept"
    first = kept_features.make_features(encoder, variables, folder=folder)(inputs)
    pixels = jnp.asarray(images.load(inputs) / np.float32(255))
    now = jax.jit(functools.partial(encoder.apply, method="features"))(variables, pixels)
    np.testing.assert_allclose(first, now, rtol=1e-5, atol=1e-6)
    again = kept_features.make_features(encoder, variables, folder=folder)(inputs[np.array([3, 1])])
    np.testing.assert_array_equal(again, first[[3, 1]])
    assert computed == [5]
    # What the head makes of them is what the encoder makes of the images.
    np.testing.assert_allclose(
        encoder_parts.HeadOf(encoder).apply(variables, jnp.asarray(first)),
        jax.jit(encoder.apply)(variables, pixels),
        atol=1e-6,
    )


def test_only_what_changed_is_computed_again(encoder, variables, files, computed, tmp_path):
    folder = tmp_path / "kept"
    before = kept_features.make_features(encoder, variables, folder=folder)(_read(files))
    PIL.Image.new("L", (9, 9), 77).save(files[2])
    after = kept_features.make_features(encoder, variables, folder=folder)(_read(files))
    assert computed == [5, 1]
    np.testing.assert_array_equal(np.delete(after, 2, 0), np.delete(before, 2, 0))
    assert not np.array_equal(after[2], before[2])


@pytest.mark.parametrize("other", ["weights", "reading", "turn"])
def test_another_encoder_or_reading_has_features_of_its_own(
    other, encoder, variables, files, computed, tmp_path
):
    folder, inputs = tmp_path / "kept", _read(files)
    kept_features.make_features(encoder, variables, folder=folder)(inputs)
    if other == "weights":
        params = jax.tree.map(lambda x: x + 0.1, variables["params"])
        variables = variables | {"params": params}
    elif other == "reading":
        inputs = _read(files, invert=True)
    else:
        inputs = inputs.turned(np.ones(5, int))
    kept_features.make_features(encoder, variables, folder=folder)(inputs)
    assert computed == [5, 5]


def test_another_head_has_the_same_features(encoder, variables, files, computed, tmp_path):
    folder, inputs = tmp_path / "kept", _read(files)
    kept_features.make_features(encoder, variables, folder=folder)(inputs)
    other = models.encoder(
        "conv4", dim=7, width=4, dropout=0.5, projection=4, normalize=False, freeze="backbone"
    )
    params = jax.jit(other.init)(jax.random.key(1), jnp.zeros((1, 8, 8, 1)))["params"]
    params = params | {"backbone": variables["params"]["backbone"]}
    kept_features.make_features(other, variables | {"params": params}, folder=folder)(inputs)
    assert computed == [5]


def test_weights_on_several_devices_have_the_same_features(computed, tmp_path, key):
    inputs = np.random.default_rng(0).random((4, 5), np.float32)
    encoder = models.encoder("mlp", dim=2, width=3, freeze="backbone")
    variables = jax.jit(encoder.init)(key, jnp.asarray(inputs))
    mesh = jax.sharding.Mesh(jax.devices(), "devices")
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    for held in (variables, jax.device_put(variables, everywhere), jax.device_get(variables)):
        kept_features.make_features(encoder, held, folder=tmp_path)(inputs)
    assert computed == [4]


class Own(nn.Module):
    """A backbone whose code is a function, which its text does not show."""

    change: Callable

    def __repr__(self):
        return "Own()"

    @nn.compact
    def __call__(self, x, train):
        return self.change(nn.Dense(3)(x.reshape(x.shape[0], -1)))


class OwnWithAddress(Own):
    """The same, with a text that has the function's address."""

    def __repr__(self):
        return f"Own({id(self.change)})"


@pytest.mark.parametrize("backbone", [Own, OwnWithAddress])
def test_the_code_of_a_backbone_decides_and_not_where_it_is_in_memory(
    backbone, computed, tmp_path, key
):
    inputs = np.random.default_rng(0).random((4, 5), np.float32)

    def features(change):
        encoder = models.encoder(backbone, dim=2, change=change, freeze="backbone")
        variables = jax.jit(encoder.init)(key, jnp.asarray(inputs))
        return kept_features.make_features(encoder, variables, folder=tmp_path)(inputs)

    first = features(lambda x: x + 1.0)
    np.testing.assert_array_equal(features(lambda x: x + 1.0), first)
    assert computed == [4]
    np.testing.assert_allclose(features(lambda x: x + 2.0), first + 1.0, rtol=1e-6)
    assert computed == [4, 4]


def test_a_damaged_file_is_reported_and_replaced(encoder, variables, computed, tmp_path):
    inputs = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    kept_features.make_features(encoder, variables, folder=tmp_path)(inputs)
    (path,) = tmp_path.glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    said = []
    kept_features.make_features(encoder, variables, folder=tmp_path, report=said.append)(inputs)
    assert "is damaged" in said[0] and str(path) in said[0]
    kept_features.make_features(encoder, variables, folder=tmp_path, report=said.append)(inputs)
    assert computed == [4, 4] and len(said) == 1


def test_a_file_of_another_shape_is_reported_and_replaced(tmp_path):
    path, said = tmp_path / "kept.npz", []
    np.savez(path, digests=np.zeros((2, kept_features._DIGEST), np.uint8), features=np.ones((2, 3)))
    keys, values = kept_features._read(path, 4, said.append)
    assert (len(keys), values.shape) == (0, (0, 4))
    assert str(path) in said[0] and "its arrays have other shapes" in said[0]
    assert kept_features._read(path, 3, said.append)[1].shape == (2, 3)
    assert len(said) == 1
