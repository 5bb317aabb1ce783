"""What the rows of a batch are compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from experiments.config import objective
from tests.support import calls, cases


@pytest.mark.parametrize("variant", cases.mostly_slow(["proxy_nca", "proxy_anchor"], ["proxy_nca"]))
def test_proxies_see_the_rows_of_a_batch_that_count(variant):
    made = digits.get_config(variant)
    made.batch.update({"classes": 4, "per_class": 3})
    made.model.dim = 6
    x, labels = jax.random.normal(jax.random.key(0), (12, 6)), jnp.arange(12) // 3
    loss = functools.partial(
        objective.loss(made), axis_name=None, key=None, **objective.learned(made)
    )
    counts = jnp.arange(12) % 3 < 2
    fewer, _ = calls.compiled(loss, x, labels, mask=counts)
    expected, _ = calls.compiled(loss, x[counts], labels[counts])
    np.testing.assert_allclose(fewer, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "variant", cases.mostly_slow(["proxy_nca", "proxy_anchor", "arcface"], ["proxy_anchor"])
)
def test_proxies_over_devices_are_those_of_one(variant):
    made = digits.get_config(variant)
    made.loss.num_classes = 5  # which eight devices cannot share evenly
    made.model.dim = 6
    x = jax.random.normal(jax.random.key(0), (16, 6))
    labels = jnp.arange(16) % 4
    proxies = objective.learned(made)["proxies"]
    loss = objective.loss(made)

    def value(x, proxies, labels, axis_name=None):
        return loss(x, labels, key=None, axis_name=axis_name, proxies=proxies)

    both = functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    (whole, stats), gradients = jax.jit(both(value))(x, proxies, labels)

    def of_device(x, labels):
        run = both(functools.partial(value, axis_name="devices"))
        (loss, stats), (of_x, of_proxies) = run(x, proxies, labels)
        return loss, stats, of_x / 8, jax.lax.pmean(of_proxies, "devices")

    lifted = jax.pmap(of_device, axis_name="devices")
    found, their_stats, of_x, of_proxies = lifted(x.reshape(8, 2, 6), labels.reshape(8, 2))
    np.testing.assert_allclose(found, np.full(8, whole), rtol=1e-5)
    np.testing.assert_allclose(of_x.reshape(16, 6), gradients[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(of_proxies[0], gradients[1], rtol=1e-3, atol=1e-5)
    for name, number in stats.items():
        np.testing.assert_allclose(their_stats[name], np.full(8, number), rtol=1e-5)
