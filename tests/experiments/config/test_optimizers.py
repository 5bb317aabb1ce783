"""From config fields to an optimizer."""

import jax.numpy as jnp
import numpy as np

from configs import digits
from experiments.config import optimizers


def test_proxies_have_a_learning_rate_of_their_own():
    made = digits.get_config("proxy_nca")
    made.optimizer.update({"name": "sgd", "momentum": 0.0, "proxies_rate": 100.0})
    parameters = {"w": jnp.ones(2)}, {"proxies": jnp.ones((3, 2)), "temperature": jnp.float32(1)}
    optimizer = optimizers.optimizer(made)
    updates, _ = optimizer.update(parameters, optimizer.init(parameters), parameters)
    rate = made.optimizer.learning_rate
    np.testing.assert_allclose(updates[0]["w"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["temperature"], -rate, rtol=1e-5)
    np.testing.assert_allclose(updates[1]["proxies"], -100 * rate, rtol=1e-5)
