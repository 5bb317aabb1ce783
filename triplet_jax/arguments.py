"""Checks the arrays that public functions take, and brings them to one form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from triplet_jax import errors

Labels = Any
"""A list or an array of shape `[n]`, which `labels` checks."""
Embeddings = Any
"""Nested lists or an array of shape `[n, dim]`, of real numbers of any type."""


def labels(
    given: Labels,
    shape: tuple[int, ...],
    *,
    name: str = "labels",
    rows: str = "embeddings",
) -> Shaped[Array | np.ndarray, "rows"]:
    """Checks that there is one label for each row.

    Labels are whole numbers, booleans, strings, or floats that are not NaN. An array of jax may be
    traced, so that only its shape is checked.

    Args:
      given: a list or an array of shape `[n]`.
      shape: the shape `[n, ...]` of the rows that the labels belong to.
      name: what messages call the labels.
      rows: what messages call the rows.

    Returns:
      The labels: an array of jax as it is, all others as an array of numpy in the machine's byte
      order.

    Raises:
      InputError: the labels have the wrong shape or type.
    """
    if isinstance(given, jax.Array):
        found = given
    else:
        found = as_array(given, name, "shape [n]")
    if not shape:
        raise errors.InputError(f"{rows} must be a list or an array, and not a single value.")
    if tuple(found.shape) != tuple(shape[:1]):
        raise errors.InputError(
            f"{name} have the shape {tuple(found.shape)}, and {rows} {tuple(shape)}: give one"
            f" value for each of the {shape[0]} rows, in a list or an array of shape"
            f" ({shape[0]},).{_way_out(found.shape, shape, name)}"
        )
    if isinstance(found, np.ndarray):
        _check_kind(found, name)
        found = found.astype(found.dtype.newbyteorder("="), copy=False)
    return found


def _way_out(found: tuple[int, ...], shape: tuple[int, ...], name: str) -> str:
    """How to make labels of a wrong shape fit, where that is known."""
    if len(found) == 2 and found[0] == shape[0]:
        if found[1] == 1:
            return f" Give {name}[:, 0]."
        return f" If they are one-hot, give {name}.argmax(axis=1)."
    return ""


def as_array(given: Any, name: str, shape: str) -> Shaped[Array | np.ndarray, "..."]:
    """A list or an array as an array of numpy; as one of jax, if something in it is traced.

    Args:
      given: the list or the array.
      name: what the message calls it.
      shape: what the message says of the shape that is wanted.

    Raises:
      InputError: the parts of a list have different lengths.
    """
    try:
        found = np.asarray(given)
    except ValueError as error:  # such as for lists of different lengths
        raise errors.InputError(f"{name} must be a list or an array of {shape}: {error}") from error
    except jax.errors.TracerArrayConversionError:  # such as for a list that was passed through jit
        return jnp.asarray(given)
    # A column of pandas holds strings as objects.
    if found.dtype == object and all(isinstance(label, str) for label in found.flat):
        return found.astype(str)
    return found


def _check_kind(found: Shaped[np.ndarray, "..."], name: str) -> None:
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
    """The sorted classes, and for each row the place of its class among them.

    Arguments and errors are those of `labels`. Nothing may be traced.
    """
    found = np.asarray(labels(given, shape, name=name, rows=rows))
    _check_kind(found, name)
    classes, of_row = np.unique(found, return_inverse=True)
    return classes, of_row.reshape(-1)


def embeddings(given: Embeddings, *, name: str = "embeddings") -> Float[np.ndarray, "rows dim"]:
    """Rows of real numbers of any type, in float32.

    A value that float32 does not hold becomes infinite.

    Args:
      given: a list or an array `[n, dim]` of numbers.
      name: what messages call the rows.

    Raises:
      InputError: `given` does not have two dimensions, or does not hold real numbers.
    """
    found = as_array(given, name, "shape [n, dim]")
    # By its kinds, numpy does not count bfloat16 and the 8-bit floats as numbers.
    if found.dtype.kind not in "biuf" and not jnp.issubdtype(found.dtype, np.floating):
        raise errors.InputError(f"{name} have dtype {found.dtype}; they must be real numbers.")
    if found.ndim != 2:
        raise errors.InputError(
            f"{name} have the shape {found.shape}; it must be [n, dim], a row for each example."
        )
    with np.errstate(over="ignore"):
        return found.astype(np.float32, copy=False)


def finite_rows(given: Embeddings, *, name: str = "embeddings") -> Float[np.ndarray, "rows dim"]:
    """As `embeddings`, but refuses NaN and infinite values too.

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


def common_codes(
    first: Shaped[np.ndarray, "rows"],
    second: Shaped[np.ndarray, "references"],
    names: tuple[str, str] = ("labels", "reference_labels"),
) -> tuple[Int[np.ndarray, "rows"], Int[np.ndarray, "references"]]:
    """Two arrays of labels as numbers from 0. Equal labels have equal numbers.

    Args:
      first: an array of labels.
      second: another one.
      names: what messages call the two.

    Raises:
      InputError: only one of the arrays holds strings, or only one holds bytes.
    """
    kinds = [x.dtype.kind if x.dtype.kind in "US" else "a number" for x in (first, second)]
    if kinds[0] != kinds[1]:
        raise errors.InputError(
            f"{names[0]} have dtype {first.dtype} and {names[1]} {second.dtype}: both must be"
            " strings, both bytes, or both numbers."
        )
    found: list = [np.unique(x, return_inverse=True) for x in (first, second)]
    # A set of Python numbers, since numpy turns integers of different types into floats to join
    # them.
    every = sorted({label for classes, _ in found for label in classes.tolist()})
    number = {label: i for i, label in enumerate(every)}
    return tuple(
        np.array([number[label] for label in classes.tolist()], np.int64)[codes.reshape(-1)]
        for classes, codes in found
    )


# -- arguments of compiled functions, which may be traced ---------------------------------


def rows(name: str, x: Array | np.ndarray) -> Float[Array, "rows dim"]:
    """An array `[rows, dim]` of real numbers, in float32 or wider.

    float16, bfloat16, integers and booleans become float32, in which all sums are taken. The
    gradient has the type of `x`. float64 stays if it is switched on in jax. An array of numpy may
    have either byte order.

    Args:
      name: what messages call the array.
      x: the array.

    Raises:
      InputError: `x` is no array, does not have two dimensions, or does not hold real numbers.
    """
    if not isinstance(x, jax.Array | np.ndarray):
        raise errors.InputError(
            f"{name} is of type {type(x).__name__}: pass an array [rows, dim], such as"
            f" jnp.asarray({name})."
        )
    if x.ndim != 2:
        raise errors.InputError(f"{name} has shape {x.shape}: it must be [rows, dim].")
    if not any(jnp.issubdtype(x.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
        raise errors.InputError(f"{name} has dtype {x.dtype}: it must hold real numbers.")
    # numpy changes to the machine's byte order first: jax refuses the other order or, in a program
    # that is compiled already, misreads it.
    wide = jax.dtypes.canonicalize_dtype(jnp.promote_types(x.dtype.newbyteorder("="), jnp.float32))
    return jnp.asarray(x.astype(wide))


def check_same_dim(**arrays: Float[Array, "_ _"]) -> None:
    """Refuses arrays whose numbers of columns differ.

    Raises:
      InputError: the numbers differ. The message names the arrays and their shapes.
    """
    if len({x.shape[1] for x in arrays.values()}) > 1:
        shapes = " and ".join(f"{name} has shape {x.shape}" for name, x in arrays.items())
        raise errors.InputError(
            f"{shapes}: rows that are compared must have the same number of values."
        )


def class_numbers(name: str, given: Labels, rows: int) -> Int[Array, "rows"]:
    """The labels of a loss, as int32. `given` may be traced.

    Args:
      name: what messages call the labels.
      given: a list or an array of shape `[rows]`, of integers or booleans.
      rows: how many rows there are to label.

    Raises:
      InputError: the labels have the wrong shape, are not integers, or do not fit into 32 bits.
    """
    found = labels(given, (rows,), name=name, rows="the rows")
    if not (found.dtype == bool or jnp.issubdtype(found.dtype, np.integer)):
        raise errors.InputError(
            f"{name} have dtype {found.dtype}, and a loss needs integers. Number the classes:"
            f" np.unique({name}, return_inverse=True)[1]."
        )
    # The values of a traced array are not known. Unequal numbers of 32 bits are unequal as int32.
    if found.dtype != np.int32 and found.size and not isinstance(found, jax.core.Tracer):
        limits = np.iinfo(np.int32)
        for label in (int(found.max()), int(found.min())):
            if not limits.min <= label <= limits.max:
                end = "up to {}, more than 2^31 - 1" if label > 0 else "down to {}, below -2^31"
                raise errors.InputError(
                    f"{name} go {end.format(label)}: number the classes from 0."
                )
    return jnp.asarray(found.astype(np.int32))


def mask(
    name: str, given: Array | np.ndarray | list | None, rows: int
) -> Bool[Array, "rows"] | None:
    """Which rows count, or None for all of them.

    Args:
      name: what messages call the mask.
      given: booleans of shape `[rows]`, or None.
      rows: how many rows there are.

    Raises:
      InputError: the mask has the wrong shape, or does not hold booleans.
    """
    if given is None:
        return None
    given = given if isinstance(given, jax.Array) else np.asarray(given)
    if given.shape != (rows,) or given.dtype != bool:
        raise errors.InputError(
            f"{name} has shape {given.shape} and dtype {given.dtype}: it must hold booleans"
            f" [{rows}], one for each row."
        )
    return jnp.asarray(given)


def counted(name: str, given: Array | np.ndarray | list | None, rows: int) -> Bool[Array, "rows"]:
    """As `mask`, with True for all rows in place of None."""
    found = mask(name, given, rows)
    return jnp.ones(rows, bool) if found is None else found
