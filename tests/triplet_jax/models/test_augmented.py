"""An encoder that embeds an image by several copies is the definition of its docstring."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, models
from triplet_jax.models import augmented, inference

SIDE = 8
ENCODERS = {
    normalize: models.encoder("mlp", dim=3, width=4, norm="group", normalize=normalize)
    for normalize in (True, False)
}
# Numpy's words for the changes of a list of images, each with the image as it is.
CHANGES = {
    "flip": lambda x: [x, np.flip(x, 2)],
    "mirror": lambda x: [x, np.flip(x, 2)],
    "turns": lambda x: [np.rot90(x, turns, (1, 2)) for turns in range(4)],
    "shifts": lambda x: [x, *(moved(x, *by) for by in [(1, 0), (-1, 0), (0, 1), (0, -1)])],
}


def moved(x, down, right):
    rows, columns = np.arange(SIDE) - down, np.arange(SIDE) - right
    return x[:, rows.clip(0, SIDE - 1)][:, :, columns.clip(0, SIDE - 1)]


def copies(x, changes):
    found = [x]
    for change in changes:
        found = [changed for copy in found for changed in CHANGES[change](copy)]
    return found


def definition(embed, x, changes, *, normalize):
    parts = []
    for joined in copies(x, [c for c in ("turns", "mirror") if c in changes]):
        means = [c for c in ("flip", "shifts") if c in changes]
        mean = np.mean([np.float64(embed(copy)) for copy in copies(joined, means)], axis=0)
        if normalize:
            mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        parts.append(mean)
    return np.concatenate(parts, axis=1) / np.sqrt(len(parts))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(3, SIDE, SIDE, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(images):
    return jax.jit(ENCODERS[True].init)(jax.random.key(0), images)


@pytest.fixture(scope="module")
def embed_one(variables):
    """Of one copy, by normalize."""
    return {
        normalize: functools.partial(jax.jit(encoder.apply), variables)
        for normalize, encoder in ENCODERS.items()
    }


@pytest.mark.parametrize(
    ("changes", "normalize", "expected_copies"),
    [
        ((), True, 1),
        (("flip",), True, 2),
        (("shifts",), False, 5),
        (("turns", "shifts", "flip"), True, 40),
        (("mirror", "turns"), False, 8),
    ],
)
def test_embeddings_are_those_of_the_definition(
    changes, normalize, expected_copies, images, variables, embed_one
):
    by_copies = models.Augmented(ENCODERS[normalize], changes)
    found = jax.jit(by_copies.apply)(variables, images)
    expected = definition(embed_one[normalize], images, changes, normalize=normalize)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.shape == (3, by_copies.dim) and by_copies.copies == expected_copies


def test_distances_are_the_mean_of_those_between_joined_copies(images, variables, embed_one):
    by_copies = models.Augmented(ENCODERS[True], ("turns",))
    found = np.asarray(inference.make_embed(by_copies, batch=2)(variables, images))
    turned = [np.asarray(embed_one[True](x)) for x in copies(images, ["turns"])]
    for i, j in itertools.combinations(range(3), 2):
        expected = np.mean([np.sum((x[i] - x[j]) ** 2) for x in turned])
        assert np.sum((found[i] - found[j]) ** 2) == pytest.approx(expected, abs=1e-6)


def test_the_variables_are_those_of_the_encoder(images, variables, key):
    by_copies = models.Augmented(ENCODERS[True], ("shifts",))
    found = jax.eval_shape(by_copies.init, key, images)
    assert jax.tree.structure(found) == jax.tree.structure(variables)


def test_fewer_images_are_embedded_at_a_time(key):
    encoder = models.encoder("conv4", dim=3, width=64, norm="group")
    by_copies = models.Augmented(encoder, ("shifts",))
    image = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    variables = jax.eval_shape(encoder.init, key, image)
    alone = inference.fitting(encoder, variables, image)
    assert inference.fitting(by_copies, variables, image) == alone // 8  # 5 copies


@pytest.mark.parametrize(
    ("changes", "shape", "train", "message"),
    [
        (("flipp",), (8, 8, 1), False, "'flipp' .* flip"),
        (("flip", "flip"), (8, 8, 1), False, "must not name anything twice"),
        (("flip", "mirror"), (8, 8, 1), False, "Leave one of them out"),
        (("flip",), (8,), False, "need images .* shape \\(8,\\)"),
        (("turns",), (8, 6, 1), False, "needs square images, not 8 x 6"),
        (("flip",), (8, 8, 1), True, "train=True"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, shape, train, message, key):
    model = models.Augmented(ENCODERS[True], changes)
    with pytest.raises(errors.InputError, match=message):
        jax.eval_shape(lambda x: model.init(key, x, train), np.zeros((1, *shape), np.float32))


def test_every_change_is_tested():
    assert set(CHANGES) == set(augmented.CHANGES)
