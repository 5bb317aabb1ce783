"""Distances to classes that have several centres."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support import calls, oracles
from triplet_jax import class_centres, contrastive, distances, errors, losses

CENTRES, CLASSES, DIM = 3, 4, 5
PARAMS = {"centres": CENTRES, "temperature": 0.2}
Y = np.array([0, 1, 2, 3, 3, 1, 0, 2])


def arrays(seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(8, DIM)), random.normal(size=(CLASSES, CENTRES, DIM))


def by_hand(x, centres, temperature):
    cosines = 1 - np.stack(
        [oracles.pairwise(x, centres[:, k], "cosine") for k in range(CENTRES)], axis=2
    )
    if not temperature:
        return 1 - cosines.max(axis=2)
    weights = np.exp(cosines / temperature)
    return 1 - (weights * cosines).sum(axis=2) / weights.sum(axis=2)


@pytest.mark.parametrize("temperature", [0.0, 0.2])
def test_distances_are_those_of_the_definition(temperature):
    x, centres = arrays()
    params = PARAMS | {"temperature": temperature}
    a = class_centres.repeated(jnp.asarray(x, jnp.float32), CENTRES)
    b = jnp.asarray(centres.reshape(CLASSES, -1), jnp.float32)
    found = distances.pairwise(a, b, class_centres.to_centres, **params)
    expected = by_hand(x, centres, temperature)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    made = class_centres.to_centres(**params)
    one = made.between(made.prepare(a)[:, None], made.prepare(b))
    np.testing.assert_allclose(one, expected, atol=1e-6)


def test_one_centre_is_the_cosine():
    x, centres = arrays()
    a, b = jnp.asarray(x, jnp.float32), jnp.asarray(centres[:, 0], jnp.float32)
    found = distances.pairwise(a, b, class_centres.to_centres, centres=1, temperature=0.0)
    np.testing.assert_allclose(found, distances.pairwise(a, b, "cosine"), atol=1e-6)


def loss(x, centres, y=Y, name="cosface", axis_name=None, **params):
    return contrastive.contrastive_loss(
        class_centres.repeated(x, CENTRES),
        y,
        loss=functools.partial(contrastive.LOSSES[name], scale=5.0),
        references=losses.References(centres.reshape(CLASSES, -1), np.arange(CLASSES), shared=True),
        metric=class_centres.to_centres,
        metric_params=PARAMS | params,
        axis_name=axis_name,
    )[0]


def test_the_gradient_is_that_of_the_definition():
    x, centres = arrays()

    def definition(x, centres):
        d = by_hand(x, centres, PARAMS["temperature"])
        logits = 5.0 * (1 - d - 0.35 * np.eye(CLASSES)[Y])
        value = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(Y)), Y]
        return {"loss": value.mean()}

    value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(
        jnp.asarray(x, jnp.float32), jnp.asarray(centres, jnp.float32)
    )
    assert float(value) == pytest.approx(definition(x, centres)["loss"], rel=1e-5)
    expected = oracles.slope(lambda x: definition(x, centres), x)["loss"]
    np.testing.assert_allclose(slopes[0], expected, atol=1e-5)
    expected = oracles.slope(lambda centres: definition(x, centres), centres)["loss"]
    np.testing.assert_allclose(slopes[1], expected, atol=1e-5)


def test_devices_change_nothing():
    x, centres = (jnp.asarray(a, jnp.float32) for a in arrays())
    whole, (of_x, of_centres) = jax.jit(jax.value_and_grad(loss, (0, 1)))(x, centres)
    run = functools.partial(loss, axis_name="devices")
    lifted = jax.pmap(jax.value_and_grad(run, (0, 1)), axis_name="devices", in_axes=(0, None, 0))
    found, slopes = lifted(x.reshape(8, 1, DIM), centres, Y.reshape(8, 1))
    np.testing.assert_allclose(found, np.full(8, whole), rtol=1e-6)
    # Of the global loss, once for every device: the step takes the mean.
    np.testing.assert_allclose(slopes[0].reshape(8, DIM) / 8, of_x, atol=1e-6)
    np.testing.assert_allclose(np.mean(slopes[1], axis=0), of_centres, atol=1e-6)


def test_equal_centres_and_zero_rows_have_finite_gradients():
    x, centres = jnp.zeros((8, DIM)).at[:4].set(1.0), jnp.ones((CLASSES, CENTRES, DIM))
    for temperature in (0.0, 0.2):
        run = functools.partial(loss, name="arcface", temperature=temperature)
        slopes = jax.jit(jax.grad(run, (0, 1)))(x, centres)
        assert all(np.isfinite(slope).all() for slope in slopes)


def test_bad_input_is_named():
    x = jnp.ones((2, 5))
    for params, message in (
        ({"centres": 0}, "centres=0 must be at least 1"),
        ({"centres": 2, "temperature": -1.0}, "temperature=-1.0 must be at least 0"),
        ({"centres": 2}, "rows of 5 values can't hold centres=2"),
    ):
        with pytest.raises(errors.InputError, match=message):
            calls.compiled(
                distances.pairwise,
                x,
                x,
                metric=class_centres.to_centres,
                **({"temperature": 0.0} | params),
            )
