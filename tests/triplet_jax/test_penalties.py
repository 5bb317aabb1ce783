import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import penalties

NAMES = sorted(penalties.PENALTIES)


def with_what_it_takes(name):
    function = penalties.PENALTIES[name]
    return functools.partial(function, d_pn=jnp.float32(1.0)) if name == "anchor_swap" else function


# Selectively contrastive jumps down where a triplet turns hard, by design.
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"selectively_contrastive"}))
def test_a_triplet_that_is_ranked_worse_never_costs_less(name):
    of = with_what_it_takes(name)
    cost = jax.vmap(lambda d_ap: of(d_ap, jnp.float32(0.75), 0.2))(jnp.linspace(0.0, 1.5, 16))
    assert (np.diff(cost) >= 0).all()
    assert np.isfinite(cost).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d_ap, d_an", [(0.0, 1e4), (1e4, 0.0), (0.5, 0.5)])
def test_values_and_gradients_are_finite_at_any_distance(name, d_ap, d_an):
    of = with_what_it_takes(name)
    value, gradient = jax.value_and_grad(lambda ap, an: of(ap, an, 0.2), argnums=(0, 1))(d_ap, d_an)
    assert np.isfinite([value, *gradient]).all()


def test_the_hinge_has_no_gradient_at_its_kink():
    assert jax.grad(lambda d: penalties.hinge(d, jnp.float32(1.0), 0.5))(0.5) == 0


@pytest.mark.parametrize("name", ["soft_margin", "ratio", "selectively_contrastive"])
def test_the_margin_is_not_used(name):
    of = penalties.PENALTIES[name]
    d_ap, d_an = jnp.float32(0.3), jnp.float32(0.9)
    assert of(d_ap, d_an, 0.0) == of(d_ap, d_an, 5.0)


def test_the_swap_takes_the_nearer_of_the_two_negatives():
    d_ap, d_an = jnp.float32(1.0), jnp.float32(1.5)
    far = penalties.anchor_swap(d_ap, d_an, 1.0, d_pn=jnp.float32(2.0))
    near = penalties.anchor_swap(d_ap, d_an, 1.0, d_pn=jnp.float32(1.25))
    assert (far, near) == (0.5, 0.75)


def test_a_negative_that_is_too_near_makes_a_triplet_hard_by_the_ceiling_alone():
    d_ap, d_an = jnp.float32(0.05), jnp.float32(0.1)  # ranked rightly, similarity 0.9
    hard = penalties.selectively_contrastive(d_ap, d_an, 0.0)
    easy = penalties.selectively_contrastive(d_ap, d_an, 0.0, ceiling=0.95)
    np.testing.assert_allclose(hard, 0.9)
    np.testing.assert_allclose(easy, np.log1p(np.exp(-0.5)), rtol=1e-5)
