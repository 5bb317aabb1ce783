"""What every encoder gives: its embeddings, its gradients, and what its heads change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, cases
from triplet_jax import errors, models

SHAPES = {"mlp": (6,), "conv4": (16, 16, 1), "resnet18": (16, 16, 3), "resnet50": (64, 64, 3)}


@pytest.mark.parametrize(
    ("name", "norm"),
    cases.mostly_slow(
        [
            *[(name, norm) for name in ("mlp", "conv4") for norm in ("batch", "group")],
            ("resnet18", "group"),
            ("resnet50", "batch"),
        ],
        [("mlp", "group"), ("conv4", "batch")],
    ),
)
def test_every_encoder_embeds_on_the_unit_sphere(name, norm, key):
    encoder = models.encoder(name, dim=5, norm=norm, width=8)
    x = jax.random.normal(key, (3, *SHAPES[name]))
    variables = jax.jit(encoder.init)(key, x)
    embeddings = jax.jit(encoder.apply)(variables, x)
    assert embeddings.shape == (3, 5)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert ("batch_stats" in variables) == (norm == "batch")


def _grid():
    """Sizes from 28 to 256; those of 96 and more once gave NaN. Resnets take long to compile."""
    for size in (28, 64, 96, 128, 160, 192, 224, 256):
        for name in ("mlp", "conv4", "resnet18", "resnet50"):
            for norm in models.NORMS:
                quick = (name, size, norm) in (("conv4", 96, "batch"), ("mlp", 160, "batch"))
                yield pytest.param(name, size, norm, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "size", "norm"), [*_grid()])
def test_every_size_of_image_has_a_finite_gradient(name, size, norm, key):
    encoder = models.encoder(name, dim=4, norm=norm, width=4)
    x = jax.random.uniform(key, (2, size, size, 3))
    variables = jax.jit(encoder.init)(key, x)

    @jax.jit
    def slope(params):
        def first(params):
            inputs = variables | {"params": params}
            return encoder.apply(inputs, x, train=True, mutable=["batch_stats"])[0][0, 0]

        return jax.grad(first)(params)

    params = variables["params"]
    for _ in range(3):
        slopes = slope(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
        assert any(leaf.any() for leaf in jax.tree.leaves(slopes["backbone"]))
        params = jax.tree.map(lambda p, g: p - 0.01 * g, params, slopes)


def test_embeddings_need_not_be_normalised(key):
    encoder = models.encoder("mlp", dim=5, normalize=False, width=8)
    x = jax.random.normal(key, (3, 6))
    norms = jnp.linalg.norm(encoder.apply(jax.jit(encoder.init)(key, x), x), axis=1)
    assert np.ptp(norms) > 0.01


def test_a_zero_embedding_stays_zero_with_a_finite_gradient():
    encoder = models.encoder("mlp", dim=5, width=8, norm="group")
    x = jnp.zeros((2, 6))
    variables = calls.compiled(encoder.init, jax.random.key(0), x)
    variables = jax.tree.map(jnp.zeros_like, variables)
    gradient = calls.compiled(jax.grad(lambda v: encoder.apply(v, x).sum()), variables)
    assert (encoder.apply(variables, x) == 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_dropout_is_of_training_alone_and_of_each_row_by_itself(key):
    x = jax.random.normal(key, (3, 6))
    plain, dropping = (
        models.encoder("mlp", dim=5, width=8, norm="group", dropout=p) for p in (0.0, 0.5)
    )
    variables = jax.jit(plain.init)(key, x)
    np.testing.assert_array_equal(dropping.apply(variables, x), plain.apply(variables, x))
    keys = jax.random.split(key, 3)
    train = functools.partial(dropping.apply, variables, train=True)
    dropped = train(x, keys=keys)
    assert not np.allclose(dropped, plain.apply(variables, x), atol=1e-2)
    np.testing.assert_allclose(train(x[::-1], keys=keys[::-1]), dropped[::-1], rtol=1e-5)
    with pytest.raises(errors.InputError, match="pass one key for each row"):
        train(x)


def test_a_projection_head_is_of_the_loss_alone(key):
    x = jax.random.normal(key, (3, 6))
    make = functools.partial(models.encoder, "mlp", dim=5, width=8, norm="group")
    plain, headed = make(), make(projection=7, projection_dim=4)
    variables = headed.init(key, x)
    head = variables["params"].pop("Projection_0")
    assert {name: layer["kernel"].shape for name, layer in head.items()} == {
        "Dense_0": (5, 7),
        "Dense_1": (7, 4),
    }
    # What is left is the encoder without the head, of the same initial weights.
    jax.tree.map(np.testing.assert_array_equal, variables, plain.init(key, x))
    np.testing.assert_array_equal(headed.apply(variables, x), plain.apply(variables, x))

    embeddings = make(normalize=False).apply(variables, x)
    hidden = np.maximum(embeddings @ head["Dense_0"]["kernel"] + head["Dense_0"]["bias"], 0)
    expected = hidden @ head["Dense_1"]["kernel"] + head["Dense_1"]["bias"]
    variables["params"]["Projection_0"] = head
    free = make(projection=7, projection_dim=4, normalize=False)
    np.testing.assert_allclose(free.apply(variables, x, train=True), expected, rtol=1e-5)
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        headed.apply(variables, x, train=True), expected / lengths, rtol=1e-5
    )


@pytest.mark.parametrize("settings", [{"name": "resnet19"}, {"name": "mlp", "norm": "layer"}])
def test_unknown_names_are_refused(settings):
    with pytest.raises(errors.InputError, match="is not known"):
        models.encoder(dim=4, **settings)
