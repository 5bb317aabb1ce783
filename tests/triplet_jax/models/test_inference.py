"""How many inputs are embedded at a time, and what is compared beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.run import raw_inputs
from triplet_jax import data, models
from triplet_jax.data import images
from triplet_jax.models import inference
from triplet_jax.models.pixels import as_floats


def fitting(name, shape, **params):
    encoder = models.encoder(name, dim=64, norm="group", **params)
    one = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), one)
    return inference.fitting(encoder, variables, one)


@pytest.mark.parametrize(("size", "expected"), [(28, 512), (64, 128), (128, 32), (224, 8)])
def test_the_largest_layer_decides_how_many_are_embedded_at_a_time(size, expected):
    assert fitting("conv4", (size, size, 3), width=64) == expected
    assert expected * size * size * 64 * 4 <= inference.LARGEST_LAYER


def test_width_counts_and_small_inputs_keep_a_large_batch():
    assert fitting("conv4", (128, 128, 3), width=128) == 16
    assert fitting("mlp", (64,), width=256) == 512
    # A layer that alone is larger: one at a time.
    assert fitting("conv4", (1024, 1024, 3), width=64) == 1


@pytest.mark.parametrize("batch", [0, 1, 3, 64])
def test_embeddings_do_not_depend_on_how_many_are_made_at_a_time(batch, key):
    encoder = models.encoder("mlp", dim=4, norm="group", width=8)
    inputs = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 1), np.uint8)
    variables = jax.jit(encoder.init)(key, as_floats(jnp.asarray(inputs)))
    expected = encoder.apply(variables, as_floats(jnp.asarray(inputs)))
    found = inference.make_embed(encoder, batch=batch)(variables, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("batch", [0, 3])
def test_no_inputs_have_no_embeddings_of_the_same_size(batch, key):
    encoder = models.encoder("mlp", dim=4, norm="group", width=8)
    inputs = np.zeros((5, 4, 4, 1), np.uint8)
    variables = jax.jit(encoder.init)(key, as_floats(jnp.asarray(inputs)))
    found = inference.make_embed(encoder, batch=batch)(variables, inputs[:0])
    assert found.shape == (0, 4) and found.dtype == np.float32


@pytest.mark.slow
def test_the_layers_are_measured_once_for_each_kind_of_inputs(key, monkeypatch):
    measured, whole = [], inference.fitting

    def counted(encoder, variables, one):
        measured.append(one.shape)
        return whole(encoder, variables, one)

    monkeypatch.setattr(inference, "fitting", counted)
    encoder = models.encoder("conv4", dim=4, norm="group", width=8)
    small, large = (np.zeros((3, side, side, 1), np.uint8) for side in (8, 16))
    variables = jax.jit(encoder.init)(key, as_floats(jnp.asarray(small)))
    embed = inference.make_embed(encoder)
    for inputs in (small, small[:1], large, small):
        embed(variables, inputs)
    assert measured == [(1, 8, 8, 1), (1, 16, 16, 1)]


def dataset(inputs):
    n = len(inputs)
    return data.Dataset(inputs, np.zeros(n, np.int32), np.full(n, "test"), ("one",))


def test_small_images_are_compared_as_they_are():
    pixels = np.random.default_rng(0).integers(1, 256, (300, 5, 5, 1), np.uint8)
    rows = pixels.reshape(300, -1).astype(np.float64)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(raw_inputs.raw_inputs(dataset(pixels)), expected, rtol=1e-5)


def test_large_images_are_compared_by_the_means_of_blocks():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 130, 130, 3), np.uint8)
    means = np.array(
        [
            [pixels[i, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3].mean(axis=(0, 1)) for x in range(43)]
            for i in range(3)
            for y in range(43)
        ]
    ).reshape(3, -1)
    expected = means / np.linalg.norm(means, axis=1, keepdims=True)
    found = raw_inputs.raw_inputs(dataset(pixels))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_encoded_images_are_compared_as_decoded_ones(tmp_path):
    from PIL import Image

    files, pixels = [], np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    for i, image in enumerate(pixels):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(files[-1])
    encoded = images.Images(files, images.ImageForm(size=8, channels=3))
    np.testing.assert_array_equal(
        raw_inputs.raw_inputs(dataset(encoded)), raw_inputs.raw_inputs(dataset(pixels))
    )
