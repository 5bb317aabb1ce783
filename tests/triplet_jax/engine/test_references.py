"""References: one typed thing, checked by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from triplet_jax import errors, losses

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
Y = np.arange(6) % 2
ROWS = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
LABELS = np.array([0, 1, 0, 1, 2])


def loss(references, **settings):
    return losses.triplet_loss(X, Y, references=references, average="valid", **settings)[0]


def test_an_array_with_labels_is_the_references_of_both():
    compiled = jax.jit(loss)
    assert compiled(losses.References(ROWS, LABELS)) == compiled(ROWS, reference_labels=LABELS) > 0


def test_references_pass_through_jit_and_have_a_gradient():
    given = losses.References(ROWS, jnp.asarray(LABELS), shared=True)
    value, slope = jax.jit(jax.value_and_grad(loss, allow_int=True))(given)
    expected_value, expected = jax.jit(
        jax.value_and_grad(lambda rows: loss(rows, reference_labels=LABELS))
    )(ROWS)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-6)
    np.testing.assert_allclose(slope.embeddings, expected, rtol=1e-5, atol=1e-6)
    assert np.any(expected) and slope.shared is True


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("rows", "labels", "mask", "message"),
    [
        (ROWS, LABELS[1:], None, r"^reference_labels have the shape \(4,\)"),
        (ROWS, LABELS, np.ones(4, bool), r"^references.mask has shape \(4,\)"),
        (ROWS, LABELS, np.ones(5), r"^references.mask .* dtype float64"),
        (ROWS[:, 1:], LABELS, None, r"references has shape \(5, 2\)"),
        (ROWS[:0], LABELS[:0], None, "^references have no rows"),
    ],
)
def test_references_that_do_not_fit_are_refused(rows, labels, mask, message):
    with pytest.raises(errors.InputError, match=message):
        loss(losses.References(rows, labels, mask))


def test_labels_are_given_once():
    with pytest.raises(errors.InputError, match="^reference_labels .* beside references"):
        loss(losses.References(ROWS, LABELS), reference_labels=LABELS)
    for alone in ({"references": ROWS}, {"references": None, "reference_labels": LABELS}):
        with pytest.raises(errors.InputError, match="^references and reference_labels are given"):
            loss(**alone)


def test_a_batch_without_rows_is_refused():
    with pytest.raises(errors.InputError, match="^embeddings have no rows"):
        losses.triplet_loss(X[:0], Y[:0])


def test_a_row_that_no_reference_is_keeps_all_its_positives():
    own = np.full(len(X), -1)
    with_own, without = (losses.References(ROWS, LABELS, own=x) for x in (own, None))
    assert jax.jit(loss)(with_own) == pytest.approx(float(jax.jit(loss)(without)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("own", [np.array([0]), np.zeros(len(X))])
def test_places_that_are_not_one_whole_number_for_each_row_are_refused(own):
    with pytest.raises(errors.InputError, match="^references.own has shape"):
        loss(losses.References(ROWS, LABELS, own=own))


def test_a_place_past_the_last_reference_is_refused():
    own = np.full(len(X), -1)
    own[1] = len(ROWS)
    places = f"names the place {len(ROWS)}, .* from 0 to {len(ROWS) - 1}"
    with pytest.raises(errors.InputError, match=f"^references.own {places}"):
        loss(losses.References(ROWS, LABELS, own=own))


def test_lists_of_labels_may_be_passed_through_jit():
    expected = jax.jit(loss)(losses.References(ROWS, LABELS))
    assert jax.jit(loss)(losses.References(ROWS, LABELS.tolist())) == pytest.approx(expected)
