"""Distances between the rows of two arrays.

A distance is a `Metric`, made from its parameters by a function in `METRICS`. Embeddings are used
as they are: only `cosine` looks at directions alone. `euclidean` and the distances of coordinates
are in the units of the embeddings, `squared_euclidean` in their square, and the others have none.
Gradients are finite everywhere, and 0 between equal rows.
"""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from triplet_jax import arguments, errors
from triplet_jax.xla import extremes, product_forms, products

product = products.product

# Squared distances from a matrix product carry an error of about 3e-7 of the squared lengths of the
# rows. Below this share of them the error shows in the fourth digit.
_BLUR = 1e-3


class Metric(NamedTuple):
    """A distance, in the forms that mining needs. A function in `METRICS` makes one."""

    prepare: Callable
    """Brings rows `[n, dim]` into the form that the other functions take. Called once."""
    pairwise: Callable
    """Values `[m, n]`, not yet finished, of prepared rows `[m, dim]` and columns `[dim, n]`. If it
    names `precision`, losses may ask for a lower one of `xla.products`."""
    between: Callable
    """The values of prepared rows `[..., dim]` that broadcast, each with its partner. They are
    accurate for near duplicates too."""
    finish: Callable = lambda x: x
    """Turns such values into distances."""
    blur: Callable | None = None
    """The values `[m]` below which `pairwise` is inaccurate, from prepared rows and columns; None
    if it never is."""
    centred: bool = False
    """Whether a common shift of all rows leaves the distances as they are."""
    by_product: bool = True
    """Whether `pairwise` is a matrix product; else it compares each coordinate of each pair."""
    both_ways: bool = True
    """Whether the distance from a to b is that from b to a."""


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root, with a gradient of 0 at 0.

    `sqrt` has an infinite slope at 0, which becomes NaN where it meets a gradient of 0. A `where`
    around it does not help, because jax also computes the gradient of the branch that was not
    taken. So the argument is replaced as well.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> print(distances.safe_sqrt(jnp.float32(4.0)), jax.grad(distances.safe_sqrt)(0.0))
      2.0 0.0
    """
    zero = x <= 0  # which NaN is not
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))


def unit(x: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
    """Rows scaled to length 1, in the type of `x`; a zero row stays zero, with a finite gradient.

    Lengths are taken in float32 at least, where they have to be between 1e-19 and 1e19: the squared
    length of a float16 row overflows at 256.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> distances.unit(jnp.array([[0.0, 2.0], [0.0, 0.0]])).tolist()
      [[0.0, 1.0], [0.0, 0.0]]
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    norm = safe_sqrt(jnp.sum(wide * wide, axis=1, keepdims=True))
    return (wide / jnp.where(norm > 0, norm, 1.0)).astype(x.dtype)


def squared_euclidean() -> Metric:
    """`|a - b|^2`, in squared units of the embeddings.

    The gradient between equal rows is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
      >>> print(distances.pairwise(a, b, "squared_euclidean"))
      [[25.]]
    """
    squares = product_forms.squared_differences
    return Metric(_as_is, squares, _difference_form, jax.nn.relu, _blur, centred=True)


def euclidean() -> Metric:
    """`|a - b|`, the default of the field.

    The gradient between equal rows is 0, not NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0]])
      >>> print(distances.pairwise(a, b, "euclidean"))
      [[5.]]
    """
    return squared_euclidean()._replace(finish=safe_sqrt)


def mahalanobis(*, precision: Float[Array, "dim dim"]) -> Metric:
    """`sqrt((a - b)' M (a - b))` with a positive definite `precision` M; euclidean where M is 1.

    M may be learned: the gradient runs through its Cholesky factor. An M that is not positive
    definite gives NaN. After Mahalanobis 1936; as a distance to learn, Weinberger and Saul 2009,
    https://jmlr.org/papers/v10/weinberger09a.html.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 1.0]])
      >>> M = jnp.diag(jnp.array([1.0, 16.0]))
      >>> print(distances.pairwise(a, b, "mahalanobis", precision=M))  # sqrt(9 + 16)
      [[5.]]
    """
    precision = jnp.asarray(precision, jnp.promote_types(jnp.result_type(precision), jnp.float32))
    return euclidean()._replace(prepare=lambda x: product(x, jnp.linalg.cholesky(precision)))


def cosine() -> Metric:
    """`1 - a.b / (|a| |b|)`, in [0, 2]; a zero row is at distance 1 from everything.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
      >>> print(distances.pairwise(a, b, "cosine"))
      [[0. 1. 2.]]
    """

    def between(a, b):
        # For unit vectors 1 - a.b = |a - b|^2 / 2, without the loss of digits.
        both = jnp.any(a != 0, axis=-1) & jnp.any(b != 0, axis=-1)
        return jnp.where(both, 0.5 * _difference_form(a, b), 1.0)

    return Metric(
        unit,
        product_forms.one_minus_cosines,
        between,
        finish=lambda x: _into_range(x, 0.0, 2.0),
        blur=lambda a, b: jnp.full(a.shape[0], _BLUR),
    )


def dot() -> Metric:
    """`1 - a.b`, of rows whose length is free.

    It is no distance, and may be negative, but it orders by similarity: nearer is more similar.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 0.0], [0.0, 0.0]])
      >>> print(distances.pairwise(a, b, "dot"))
      [[-2.  1.]]
    """
    return Metric(
        _as_is,
        product_forms.one_minus_products,
        lambda a, b: 1.0 - jnp.sum(a * b, axis=-1),
    )


def manhattan() -> Metric:
    """`sum |a - b|`. Coordinates that are equal have a gradient of 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]])
      >>> print(distances.pairwise(a, b, "manhattan"))
      [[7.]]
    """
    # The slope of abs at 0 is 1 in jax.
    return of_differences(lambda a, b: jnp.sum(jnp.where(a == b, 0.0, jnp.abs(a - b)), axis=-1))


def minkowski(*, p: Float[Array, ""] | float | int) -> Metric:
    """`(sum |a - b|^p)^(1/p)` for finite p >= 1: manhattan for 1, euclidean for 2.

    Coordinates that are equal have a gradient of 0. A traced p is not checked.

    Raises:
      InputError: p is not finite, or is below 1, where this is not a distance.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]])
      >>> print(distances.pairwise(a, b, "minkowski", p=1.0))
      [[7.]]
    """
    if not isinstance(p, jax.core.Tracer) and not 1 <= p < float("inf"):
        raise errors.InputError(f"p={p} must be at least 1 and finite.")

    def between(a, b):
        gap = jnp.abs(a - b)
        differs = gap != 0
        # Shares of the largest gap, so that no power overflows.
        largest = jax.lax.stop_gradient(jnp.max(gap, axis=-1))
        scale = jnp.where(largest == 0, 1.0, largest)
        powers = jnp.where(differs, jnp.where(differs, gap / scale[..., None], 1.0) ** p, 0.0)
        total = jnp.sum(powers, axis=-1)
        none = total == 0
        return jnp.where(none, 0.0, scale * jnp.where(none, 1.0, total) ** (1.0 / p))

    return of_differences(between)


def jaccard() -> Metric:
    """`1 - sum min(a, b) / sum max(a, b)`, in [0, 1], of features that are not negative.

    For features of 0 and 1 it is the Jaccard distance of sets; the weighted form is due to Ruzicka
    1958 (see Ioffe 2010, https://doi.org/10.1109/ICDM.2010.80). Two zero rows are at distance 0, as
    are two whose larger features add up to less than 1e-15.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
      >>> print(distances.pairwise(a, b, "jaccard"))  # 1 - 1/2 and 1 - 0/3
      [[0.5 1. ]]
    """

    def between(a, b):
        most = jnp.sum(extremes.larger(a, b), axis=-1)
        nothing = most <= 1e-15  # the gradient divides by its square
        share = jnp.sum(extremes.smaller(a, b), axis=-1) / jnp.where(nothing, 1.0, most)
        return jnp.where(nothing, 0.0, 1.0 - share)

    return of_differences(between)


def signal_to_noise() -> Metric:
    """`var(a - b) / var(a)`, from the anchor a: how much noise turns it into b.

    The variances are over the values of a row, so that adding a number to all of them changes
    nothing. The distance from a to b is not that from b to a. An anchor of equal values has no
    variance, and is given the variance 1. Yuan, Deng, Tang, Tang and Chen 2019, "Signal-to-Noise
    Ratio: A Robust Distance Metric for Deep Metric Learning", https://arxiv.org/abs/1904.02616.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> a, b = jnp.array([[0.0, 2.0]]), jnp.array([[0.0, 6.0]])
      >>> print(distances.pairwise(a, b, "signal_to_noise"))  # of (0, 4) and of (0, 2)
      [[4.]]
    """

    def prepare(x):
        centred = x - jnp.mean(x, axis=1, keepdims=True)
        squares, noise = jnp.sum(centred**2, axis=1), 1e-12 * jnp.sum(x**2, axis=1)
        is_rounding = squares <= noise  # which NaN is not
        return jnp.where(is_rounding[:, None], 0.0, centred)

    def of_anchor(a):
        squares = jnp.sum(a * a, axis=-1)
        return jnp.where(squares == 0, a.shape[-1], squares)

    def pairwise(a, b, precision=products.FULL):
        return product_forms.squared_differences(a, b, precision) / of_anchor(a)[:, None]

    return Metric(
        prepare,
        pairwise,
        lambda a, b: _difference_form(a, b) / of_anchor(a),
        jax.nn.relu,
        lambda a, b: _blur(a, b) / of_anchor(a),
        both_ways=False,
    )


METRICS: dict[str, Callable[..., Metric]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "jaccard": jaccard,
    "mahalanobis": mahalanobis,
    "manhattan": manhattan,
    "minkowski": minkowski,
    "signal_to_noise": signal_to_noise,
    "squared_euclidean": squared_euclidean,
}
"""The metrics that losses and `pairwise` take by name."""


def make(metric: str | Callable[..., Metric], **params) -> Metric:
    """The metric of a name in `METRICS`, or of a function like those in it.

    Raises:
      InputError: the name is not known, or the parameters are not those of the metric.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> metric = distances.make("euclidean")
      >>> print(metric.finish(metric.between(jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0]))))
      5.0
    """
    if not callable(metric):
        errors.check_known("metric", metric, METRICS)
    made = metric if callable(metric) else METRICS[metric]
    takes = inspect.signature(made).parameters
    needed = {name for name, one in takes.items() if one.default is one.empty}
    if not needed <= set(params) <= set(takes):
        takes, given = (", ".join(sorted(x)) or "no parameters" for x in (takes, params))
        raise errors.InputError(f"metric={name_of(metric)!r} takes {takes}, and was given {given}.")
    return made(**params)


def in_precision(precision: str, metric: str | Callable[..., Metric], /, **params) -> Metric:
    """As `make`, with the metric's matrix product in a precision of `xla.products.PRECISIONS`.

    Raises:
      InputError: as from `make`, or the precision needs a matrix product that the metric lacks.
    """
    errors.check_known("precision", precision, products.PRECISIONS)
    made, found = make(metric, **params), products.PRECISIONS[precision]
    if found is products.FULL:
        return made
    if "precision" not in inspect.signature(made.pairwise).parameters:
        raise errors.InputError(
            f"precision={precision!r} does not suit {name_of(metric)}, which no matrix product"
            " measures: set precision='float32', or a metric such as cosine or euclidean."
        )
    return made._replace(pairwise=functools.partial(made.pairwise, precision=found))


def name_of(metric: str | Callable[..., Metric]) -> str:
    """The name of a metric in a message."""
    metric = metric.func if isinstance(metric, functools.partial) else metric
    return getattr(metric, "__name__", repr(metric)) if callable(metric) else metric


def prepared(
    metric: Metric, a: Float[Array, "anchors dim"], b: Float[Array, "candidates dim"]
) -> tuple[Float[Array, "anchors dim"], Float[Array, "candidates dim"]]:
    """The rows in the form that the functions of `metric` take.

    Rows far from the origin would lose digits in a matrix product. Where a common shift changes no
    distance, they are shifted by the mean of `b`.
    """
    a, b = metric.prepare(a), metric.prepare(b)
    if not metric.centred:
        return a, b
    mean = jax.lax.stop_gradient(jnp.mean(b, axis=0))
    # This choice changes nothing. Without it XLA fuses the division by n with each of the two
    # subtractions and rounds them differently, so that equal rows of a and b come apart.
    centre = jnp.where(jnp.isnan(mean), jnp.nan, mean)
    return a - centre, b - centre


def pairwise(
    a: Shaped[Array | np.ndarray, "anchors dim"],
    b: Shaped[Array | np.ndarray, "candidates dim"],
    metric: str | Callable[..., Metric] = "euclidean",
    **params,
) -> Float[Array, "anchors candidates"]:
    """The distance from every row of `a` to every row of `b`.

    Euclidean distances and cosines come from one matrix product, at full float32 precision on every
    accelerator: the reduced precision that is the default on some of them reorders near neighbours.
    Rounding leaves an error of about `3e-7 r^2` in a squared distance, where r is the rows'
    distance from their mean. Mining measures near duplicates again.

    Args:
      a: the anchors, `[anchors, dim]` of any real number type; types below float32 become float32.
      b: the candidates, `[candidates, dim]`.
      metric: a name in `METRICS`, or a function like those in it.
      **params: parameters of the metric: `p` of minkowski, `precision` of mahalanobis.

    Returns:
      The distances `[anchors, candidates]`, in the units of the metric.

    Raises:
      InputError: the metric is not known, its parameters are not those given, or `a` and `b` are
        not arrays of real numbers with equally many columns.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> print(distances.pairwise(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 1.0]])))
      [[5. 1.]]
    """
    made = make(metric, **params)
    a, b = arguments.rows("a", a), arguments.rows("b", b)
    arguments.check_same_dim(a=a, b=b)
    a, b = prepared(made, a, b)
    return made.finish(made.pairwise(a, b.T))


def _as_is(x):
    return x


def _into_range(x, low, high):
    """`x`, brought back into a range that rounding had left; the slope stays that of `x`."""
    return x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)


def _difference_form(a, b):
    return jnp.sum((a - b) ** 2, axis=-1)


def _blur(a, b):
    return _BLUR * (jnp.sum(a * a, axis=1) + jnp.max(jnp.sum(b * b, axis=0)))


def of_differences(between: Callable) -> Metric:
    """A metric whose distances are measured pair by pair, without a matrix product.

    Memory is `anchors x candidates x dim` numbers for a tile of anchors.

    Args:
      between: takes two arrays `[..., dim]` that broadcast and returns the distances `[...]`. Its
        gradient must be finite for equal rows.

    Example:
      >>> import jax.numpy as jnp
      >>> from triplet_jax import distances
      >>> def largest_gap():
      ...     return distances.of_differences(lambda a, b: jnp.max(jnp.abs(a - b), axis=-1))
      >>> print(distances.pairwise(jnp.array([[0.0, 0.0]]), jnp.array([[3.0, -4.0]]), largest_gap))
      [[4.]]
    """

    def pairwise(a, b):
        return between(a[:, None, :], b.T[None, :, :])

    return Metric(_as_is, pairwise, between, by_product=False)
