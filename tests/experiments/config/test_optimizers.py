"""From config fields to an optimizer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from experiments.config import optimizers
from triplet_jax import models


class Staged(nn.Module):
    """Three dense layers, each a stage."""

    frozen: int = 0

    def stages(self):
        return {name: (name,) for name in ("low", "middle", "high")}

    @nn.compact
    def __call__(self, x, train):
        for name in self.stages():
            x = nn.Dense(4, name=name)(x)
        return x


def _config(**fields):
    made = digits.get_config("semi_hard")
    made.optimizer.update({"decay": "constant", "warmup_steps": 0} | fields)
    return made


def _taken(made, encoder, steps, is_zero=lambda count: False):
    """The updates of some steps with gradients of 1, and the last state."""
    params = encoder.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    parameters = params, {"beta": jnp.float32(1)}
    optimizer = optimizers.optimizer(made, encoder)
    state, updates = optimizer.init(parameters), []
    for count in range(steps):
        slopes = jax.tree.map(jnp.ones_like, parameters)
        if is_zero(count):
            slopes[0]["backbone"] = jax.tree.map(jnp.zeros_like, slopes[0]["backbone"])
        found, state = optimizer.update(slopes, state, parameters)
        updates.append(found)
    return updates, state


def test_proxies_have_a_learning_rate_of_their_own():
    made = digits.get_config("proxy_nca")
    made.optimizer.update({"name": "sgd", "momentum": 0.0, "proxies_rate": 100.0})
    parameters = (
        {"Dense_0": {"bias": jnp.ones(2)}},
        {"proxies": jnp.ones((3, 2)), "temperature": jnp.float32(1)},
    )
    optimizer = optimizers.optimizer(made, models.encoder("mlp", dim=2))
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    rate = made.optimizer.learning_rate
    np.testing.assert_allclose(updates[0]["Dense_0"]["bias"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["temperature"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["proxies"], -100 * rate, rtol=1e-5)


def test_earlier_stages_learn_more_slowly():
    made = _config(name="sgd", momentum=0.0, learning_rate=1.0, backbone_rate=0.1, layer_decay=0.5)
    ((of_params, of_learned),), _ = _taken(made, models.encoder(Staged, dim=4), 1)
    found = {name: float(group["bias"][0]) for name, group in of_params["backbone"].items()}
    assert found == pytest.approx({"low": -0.025, "middle": -0.05, "high": -0.1})
    np.testing.assert_allclose(of_params["Dense_0"]["kernel"], -1)
    np.testing.assert_allclose(of_learned["beta"], -1)


@pytest.mark.parametrize("freeze", ["low", "backbone"])
def test_a_frozen_weight_does_not_decay_and_has_no_state(freeze):
    made = _config(name="adamw", weight_decay=0.1)
    made.model.freeze = freeze
    (first, last), state = _taken(made, models.encoder(Staged, dim=4, freeze=freeze), 2)
    frozen = ("low",) if freeze == "low" else ("low", "middle", "high")
    for update in (first, last):
        for name, group in update[0]["backbone"].items():
            assert (name in frozen) == (not np.any(group["kernel"]))
        assert np.all(update[0]["Dense_0"]["kernel"])
    sizes = [x.size for x in jax.tree.leaves(state) if x.ndim]
    learning = 3 - len(frozen) + 1
    assert sum(sizes) == 2 * learning * (4 * 4 + 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_backbone_that_joins_later_takes_a_first_step_of_its_own(name):
    made = _config(name=name, learning_rate=0.01, backbone_start=30)
    taken, _ = _taken(made, models.encoder(Staged, dim=4), 33, is_zero=lambda count: count < 30)
    lengths = [abs(float(of_params["backbone"]["high"]["bias"][0])) for of_params, _ in taken]
    assert not any(lengths[:30])
    # With the moments of 30 zero gradients, Adam's first step would be three times as long.
    np.testing.assert_allclose(lengths[30], 0.01, rtol=1e-3)
    heads = [abs(float(of_params["Dense_0"]["bias"][0])) for of_params, _ in taken]
    np.testing.assert_allclose(heads[0], 0.01, rtol=1e-3)


def test_a_backbone_that_joins_later_warms_up_again():
    made = _config(name="sgd", momentum=0.0, learning_rate=1.0, backbone_start=4, warmup_steps=2)
    taken, _ = _taken(made, models.encoder(Staged, dim=4), 8)
    lengths = [-float(of_params["backbone"]["low"]["bias"][0]) for of_params, _ in taken]
    assert lengths == pytest.approx([0, 0, 0, 0, 0, 0.5, 1, 1])
