"""The geometry of a set of embeddings: alignment, uniformity, spectrum, hubness and CKA."""

import numpy as np
import scipy.special
from jaxtyping import Float, Int

from triplet_jax import arguments, errors, evaluation


def alignment(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
) -> float:
    """Alignment: the mean squared distance `E |f(x) - f(y)|^2` of two examples of one class.

    0 is best. Wang and Isola 2020, https://arxiv.org/abs/2005.10242, define it for unit vectors.

    >>> round(alignment([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0]], [0, 0, 1]), 3)
    2.0

    Args:
      embeddings: the examples, `[examples, dim]`.
      labels: their classes, `[examples]`.
      max_pairs: the most pairs to use; if there are more, this many are drawn.
      seed: decides which pairs are drawn.

    Returns:
      The mean; NaN if no two examples are of one class.
    """
    same, _ = evaluation.pair_distances(embeddings, labels, max_pairs=max_pairs, seed=seed)
    return float(np.mean(same.astype(np.float64) ** 2)) if len(same) else float("nan")


def uniformity(embeddings: arguments.Embeddings, *, t: float = 2.0, tile: int = 1024) -> float:
    """Uniformity: `log E exp(-t |f(x) - f(y)|^2)` over all pairs of two examples.

    The lower, the more evenly the embeddings spread over the sphere; 0 if all are one point. Wang
    and Isola 2020, https://arxiv.org/abs/2005.10242, define it for unit vectors.

    >>> round(uniformity([[0.0, 1.0], [0.0, -1.0]]), 3)
    -8.0

    Args:
      embeddings: the examples, `[examples, dim]`.
      t: the sharpness of the kernel.
      tile: how many examples are compared with all at a time.

    Returns:
      The logarithm; NaN for a single example.
    """
    x = arguments.finite_rows(embeddings).astype(np.float64)
    n, lengths, of_tiles = len(x), np.sum(x**2, axis=1), []
    if n < 2:
        return float("nan")
    for start in range(0, n, tile):
        rows = np.arange(start, min(start + tile, n))
        squared = lengths[rows, None] + lengths - 2 * x[rows] @ x.T
        exponent = -t * np.maximum(squared, 0.0)
        exponent[np.arange(len(rows)), rows] = -np.inf  # nobody is a pair with itself
        of_tiles.append(scipy.special.logsumexp(exponent))
    return float(scipy.special.logsumexp(of_tiles) - np.log(n * (n - 1)))


def spectrum(embeddings: arguments.Embeddings) -> Float[np.ndarray, "dim"]:
    """The share of the variance along each principal axis, in falling order.

    All shares are 0 if there is no variance.

    >>> spectrum([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    array([1., 0.])
    """
    x = arguments.finite_rows(embeddings).astype(np.float64)
    variance = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    variance = np.pad(variance, (0, x.shape[1] - len(variance)))
    total = variance.sum()
    return variance / total if total > 0 else np.zeros_like(variance)


def effective_rank(embeddings: arguments.Embeddings) -> float:
    """The effective rank `exp(-sum p log p)` of the spectrum p: how many dimensions are used.

    It is the number of dimensions if all are used alike, and 1 if all examples lie on a line or are
    one point. Roy and Vetterli 2007, https://ieeexplore.ieee.org/document/7098875.

    >>> round(effective_rank([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 3)
    2.0
    """
    p = spectrum(embeddings)
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def occurrences(
    embeddings: arguments.Embeddings, *, neighbours: int = 10
) -> Int[np.ndarray, "examples"]:
    """How often each example is among the nearest neighbours of another.

    The mean is `neighbours`; an example with a much larger count is a hub (Radovanović et al. 2010,
    https://jmlr.org/papers/v11/radovanovic10a.html).

    >>> occurrences([[0.0], [1.0], [3.0]], neighbours=1)
    array([1, 2, 0])

    Args:
      embeddings: the examples, `[examples, dim]`.
      neighbours: how many nearest neighbours of each example count.

    Raises:
      InputError: there are fewer than `neighbours` other examples.
    """
    _, position = evaluation.nearest(embeddings, None, neighbours=neighbours)
    return np.bincount(position.reshape(-1), minlength=len(position))


def hubness(embeddings: arguments.Embeddings, *, neighbours: int = 10) -> float:
    """The skewness of `occurrences`: near 0 without hubs, and large with some.

    >>> round(hubness([[0.0], [1.0], [3.0]], neighbours=1), 3)
    0.0

    Args:
      embeddings: the examples, `[examples, dim]`.
      neighbours: how many nearest neighbours of each example count.

    Returns:
      The skewness; 0 if all examples occur equally often.

    Raises:
      InputError: there are fewer than `neighbours` other examples.
    """
    found = occurrences(embeddings, neighbours=neighbours).astype(np.float64)
    centred = found - found.mean()
    deviation = centred.std()
    return float(np.mean(centred**3) / deviation**3) if deviation > 0 else 0.0


def cka(a: arguments.Embeddings, b: arguments.Embeddings) -> float:
    """Linear CKA: how similar two embeddings of the same examples are.

    `|B'A|^2 / (|A'A| |B'B|)` of the centred embeddings A and B, in Frobenius norms (Kornblith et
    al. 2019, https://arxiv.org/abs/1905.00414). It is 1 if they are equal up to rotation and scale,
    and near 0 for many examples with unrelated embeddings.

    >>> round(cka([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], [[3.0, 0.0], [0.0, 3.0], [6.0, 6.0]]), 3)
    1.0

    Args:
      a: one embedding of each example, `[examples, dim]`.
      b: another embedding of each example, which may have another `dim`.

    Returns:
      The similarity; NaN if all examples are one point in `a` or in `b`.

    Raises:
      InputError: `a` and `b` have different numbers of examples.
    """
    a, b = (arguments.finite_rows(x, name=name) for x, name in ((a, "a"), (b, "b")))
    if len(a) != len(b):
        raise errors.InputError(
            f"Two embeddings of the same examples are needed, but there are {len(a)} and {len(b)}."
        )
    a, b = (x.astype(np.float64) - np.mean(x, axis=0, dtype=np.float64) for x in (a, b))
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / scale) if scale > 0 else float("nan")
