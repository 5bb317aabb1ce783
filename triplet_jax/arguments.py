"""Arrays that a public function is given, checked and brought to one form."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from triplet_jax import errors

Labels = Any
"""A list or an array of shape `[n]`, which `labels` checks."""
Embeddings = Any
"""Nested lists or an array of shape `[n, dim]`, of any type of real numbers."""


def labels(
    given: Labels,
    shape: tuple[int, ...],
    *,
    name: str = "labels",
    rows: str = "embeddings",
) -> Shaped[Array | np.ndarray, "rows"]:
    """One label for each row: whole numbers, booleans, strings, or floats that are not NaN.

    Only the shape of an array of jax is looked at, so that it may be traced.

    Args:
      given: a list or an array of shape `[n]`.
      shape: of the rows that the labels belong to, `[n, ...]`.
      name: what the labels are called in messages.
      rows: what the rows are called in messages.

    Returns:
      The array: one of jax as it is, any other as one of numpy in the machine's byte order.

    Raises:
      InputError: the labels have another shape, or are of another kind.
    """
    if isinstance(given, jax.Array):
        found = given
    else:
        found = _as_array(given, name)
    if tuple(found.shape) != tuple(shape[:1]):
        raise errors.InputError(
            f"{name} have the shape {tuple(found.shape)}, and {rows} {tuple(shape)}: give one"
            f" label for each of the {shape[0]} rows, in a list or an array of shape"
            f" ({shape[0]},).{_way_out(found.shape, shape, name)}"
        )
    if isinstance(found, np.ndarray):
        _check_kind(found, name)
        found = found.astype(found.dtype.newbyteorder("="), copy=False)
    return found


def _way_out(found, shape, name):
    if len(found) == 2 and found[0] == shape[0]:
        if found[1] == 1:
            return f" Give {name}[:, 0]."
        return f" If they are one-hot, give {name}.argmax(axis=1)."
    return ""


def _as_array(given, name):
    try:
        found = np.asarray(given)
    except ValueError as error:  # lists in a list, of different lengths
        raise errors.InputError(
            f"{name} must be a list or an array of shape [n]: {error}"
        ) from error
    # The strings of a pandas column are objects.
    if found.dtype == object and all(isinstance(label, str) for label in found.flat):
        return found.astype(str)
    return found


def _check_kind(found, name):
    if found.dtype.kind not in "biufUS":
        raise errors.InputError(
            f"{name} have dtype {found.dtype}; they must be whole numbers or strings."
        )
    if found.dtype.kind == "f" and np.isnan(found).any():
        raise errors.InputError(
            f"{np.isnan(found).sum()} of {len(found)} {name} are NaN: leave out rows without a"
            " label."
        )


def codes(
    given: Labels,
    shape: tuple[int, ...],
    *,
    name: str = "labels",
    rows: str = "embeddings",
) -> tuple[Shaped[np.ndarray, "classes"], Int[np.ndarray, "rows"]]:
    """The classes that occur, sorted, and for each row the place of its class among them.

    Arguments and errors are those of `labels`; nothing may be traced.
    """
    found = np.asarray(labels(given, shape, name=name, rows=rows))
    _check_kind(found, name)
    classes, of_row = np.unique(found, return_inverse=True)
    return classes, of_row.reshape(-1)


def embeddings(given: Embeddings, *, name: str = "embeddings") -> Float[np.ndarray, "rows dim"]:
    """Rows in float32, whatever number type they have.

    A value that float32 does not hold becomes infinite.

    Args:
      given: a list or an array `[n, dim]` of numbers.
      name: what it is called in messages.

    Raises:
      InputError: it does not have two dimensions, or holds no real numbers.
    """
    found = _as_array(given, name)
    # bfloat16 and the types of 8 bits are no kind that numpy knows.
    if found.dtype.kind not in "biuf" and not jax.numpy.issubdtype(found.dtype, np.floating):
        raise errors.InputError(f"{name} have dtype {found.dtype}; they must be real numbers.")
    if found.ndim != 2:
        raise errors.InputError(
            f"{name} have the shape {found.shape}; it must be [n, dim], a row for each example."
        )
    with np.errstate(over="ignore"):
        return found.astype(np.float32, copy=False)


def finite_rows(given: Embeddings, *, name: str = "embeddings") -> Float[np.ndarray, "rows dim"]:
    """The rows of `embeddings`, for what has no meaning where a value is not finite.

    Raises:
      InputError: as `embeddings`, or a row has NaN or infinite values.
    """
    found = embeddings(given, name=name)
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise errors.InputError(
            f"{len(bad)} of {len(found)} rows of {name} have NaN or infinite values, the first is"
            f" row {bad[0]}. Leave them out, or find out why the encoder gives them."
        )
    return found
