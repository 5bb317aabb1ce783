"""Labels and embeddings that people hand over, and what is refused."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest
from hypothesis.extra import numpy as hnp

from triplet_jax import arguments, errors

NUMBERS = ["<i4", ">i4", ">i8", "u1", "u8", "?", "f4", ">f8", "f2"]


@hypothesis.given(hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(0, 100)))
def test_labels_of_every_form_have_the_same_classes(numbers):
    shape = (len(numbers), 3)
    forms = [numbers, numbers.tolist(), tuple(numbers.tolist()), jnp.asarray(numbers)]
    forms += [numbers.astype(kind) for kind in NUMBERS if kind != "?"]
    forms += [pd.Series(numbers, index=numbers + 5), numbers[::-1][::-1]]
    expected = np.searchsorted(np.unique(numbers), numbers)
    for form in forms:
        assert arguments.labels(form, shape).shape == (len(numbers),)
        np.testing.assert_array_equal(arguments.codes(form, shape)[1], expected)


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda x: np.array(x, object)])
def test_strings_are_labels(form):
    classes, code = arguments.codes(form(["b", "a", "b"]), (3, 2))
    assert classes.tolist() == ["a", "b"] and code.tolist() == [1, 0, 1]


def test_labels_come_in_the_byte_order_of_the_machine():
    found = arguments.labels(np.array([1, 258], ">i4"), (2, 3))
    assert found.dtype == np.int32 and found.tolist() == [1, 258]


def test_labels_of_a_single_value_are_refused():
    with pytest.raises(errors.InputError, match="queries must be a list or an array, and not a s"):
        arguments.labels([1], (), rows="queries")


def test_labels_may_be_traced():
    assert jax.jit(lambda x: arguments.labels(x, (3, 2)) + 1)(jnp.arange(3)).tolist() == [1, 2, 3]
    with pytest.raises(errors.InputError, match=r"shape \(3, 1\), and embeddings \(3, 2\)"):
        jax.jit(lambda x: arguments.labels(x, (3, 2)))(jnp.zeros((3, 1)))


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros((4, 1), int), r"shape \(4, 1\), and embeddings \(4, 2\).* Give labels\[:, 0\]\."),
        (np.eye(4, 5), r"shape \(4, 5\), and embeddings \(4, 2\).* labels.argmax\(axis=1\)"),
        ([0, 1, 2], r"shape \(3,\), and embeddings \(4, 2\): .* each of the 4 rows"),
        (7, r"shape \(\), and embeddings \(4, 2\)"),
        ([], r"shape \(0,\), and embeddings \(4, 2\)"),
        ([[0], [1, 2], [3], [4]], r"labels must be a list or an array of shape \[n\]"),
        ([0.5, np.nan, 1, np.nan], "2 of 4 labels are NaN"),
        ([1, None, 2, 3], "dtype object"),
        ([1j, 2, 3, 4], "dtype complex128"),
    ],
)
def test_other_labels_are_refused(given, message):
    with pytest.raises(errors.InputError, match=message):
        arguments.labels(given, (4, 2))


def test_messages_name_the_arguments():
    with pytest.raises(errors.InputError, match=r"^reference_labels have .*, and references \(2,"):
        arguments.labels([1], (2, 3), name="reference_labels", rows="references")


@pytest.mark.parametrize("kind", [*NUMBERS, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, "f8"])
def test_embeddings_of_every_number_type_are_float32(kind):
    values = np.array([[0, 1, 1], [1, 0, 0]]).astype(kind)
    found = arguments.embeddings(values)
    assert found.dtype == np.float32 and found.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert arguments.embeddings(values.tolist()).tolist() == found.tolist()


@pytest.mark.parametrize(
    "given, message",
    [
        (np.zeros(3), r"embeddings have the shape \(3,\)"),
        (np.zeros((2, 2, 2)), r"embeddings have the shape \(2, 2, 2\)"),
        (np.zeros((2, 2), complex), "embeddings have dtype complex128"),
        ([["a", "b"]], "embeddings have dtype <U1"),
        ([[1.0], [1.0, 2.0]], "embeddings must be"),
    ],
)
def test_other_embeddings_are_refused(given, message):
    with pytest.raises(errors.InputError, match=message):
        arguments.embeddings(given)


def test_values_beyond_float32_are_infinite_and_refused_where_they_mean_nothing():
    assert np.isinf(arguments.embeddings([[1e300, 0.0]])).tolist() == [[True, False]]
    with pytest.raises(errors.InputError, match="2 of 3 rows of x have NaN .* is row 1"):
        arguments.finite_rows([[0.0], [np.nan], [1e300]], name="x")
