import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax.engine import terms

X = jnp.array([700.0, -700.0, 3.0, 2.0])
ALL, LAST_TWO, NONE = jnp.ones(4, bool), jnp.arange(4) >= 2, jnp.zeros(4, bool)


@pytest.mark.parametrize("shown", [ALL, LAST_TWO])
def test_log_sum_exp_is_that_of_what_is_shown_without_overflow(shown):
    expected = np.logaddexp.reduce(np.asarray(X, np.float64)[np.asarray(shown)])
    np.testing.assert_allclose(terms.log_sum_exp(X, shown), expected, rtol=1e-6)
    np.testing.assert_allclose(terms.log_one_more(X, shown), np.logaddexp(0, expected), rtol=1e-6)


def test_the_gradient_is_a_softmax_that_leaves_out_what_is_hidden():
    gradient = jax.grad(terms.log_sum_exp)(X, LAST_TWO)
    share = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(gradient, [0, 0, share, 1 - share], rtol=1e-5)


def test_nothing_adds_nothing_and_has_no_gradient():
    assert terms.log_sum_exp(X, NONE) == -1e30
    assert terms.log_one_more(X, NONE) == 0
    assert not jax.grad(terms.log_one_more)(X, NONE).any()


@pytest.mark.parametrize("positives, negatives", [(True, False), (False, True), (False, False)])
def test_an_anchor_without_both_kinds_has_no_value_and_no_weight(positives, negatives):
    found = terms.of_both(
        jnp.float32(jnp.inf), jnp.array([positives]), jnp.array([negatives]), jax.nn.relu
    )
    assert found.value.tolist() == [0.0]
    assert found.weight.tolist() == [0.0]


def test_each_positive_is_compared_with_all_negatives():
    s_ap, s_an = jnp.array([1.0, 9.0]), jnp.array([1.0, 1.0])
    found = terms.each_against_all(s_ap, jnp.array([True, False]), s_an, jnp.array([True, True]))
    np.testing.assert_allclose(found.value, [np.log(3)], rtol=1e-6)  # 1 of 3 equal ones
    assert found.weight.tolist() == [1.0]
