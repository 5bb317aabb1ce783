"""The shape of a set of embeddings: how tight, how spread out, how many dimensions it uses."""

import numpy as np
from jaxtyping import Float, Int

from triplet_jax import arguments, errors, evaluation


def alignment(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
) -> float:
    """The mean squared distance of two examples of one class, 0 at best.

    Wang and Isola 2020, for unit vectors: `E |f(x) - f(y)|^2`, over all pairs of one class, or
    `max_pairs` drawn of them. NaN without such a pair.
    """
    same, _ = evaluation.pair_distances(embeddings, labels, max_pairs=max_pairs, seed=seed)
    return float(np.mean(same.astype(np.float64) ** 2)) if len(same) else float("nan")


def uniformity(embeddings: arguments.Embeddings, *, t: float = 2.0, tile: int = 1024) -> float:
    """How evenly embeddings spread over the sphere; the lower the better, 0 in one point.

    Wang and Isola 2020, for unit vectors: `log E exp(-t |f(x) - f(y)|^2)` over all pairs of two
    examples. NaN for a single example.
    """
    x = arguments.finite_rows(embeddings).astype(np.float64)
    n, lengths, total = len(x), np.sum(x**2, axis=1), 0.0
    if n < 2:
        return float("nan")
    for start in range(0, n, tile):
        some = slice(start, start + tile)
        squared = lengths[some, None] + lengths - 2 * x[some] @ x.T
        total += float(np.exp(-t * np.maximum(squared, 0.0)).sum())
    return float(np.log((total - n) / (n * (n - 1))))


def spectrum(embeddings: arguments.Embeddings) -> Float[np.ndarray, "dim"]:
    """The share of the variance along each principal axis, falling; zeros where there is none."""
    x = arguments.finite_rows(embeddings).astype(np.float64)
    variance = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    variance = np.pad(variance, (0, x.shape[1] - len(variance)))
    total = variance.sum()
    return variance / total if total > 0 else np.zeros_like(variance)


def effective_rank(embeddings: arguments.Embeddings) -> float:
    """How many dimensions are used: `exp(-sum p log p)` of the spectrum p.

    Roy and Vetterli 2007. As many as there are where all are used alike, 1 on a line, and 1 in a
    point, too.
    """
    p = spectrum(embeddings)
    p = p[p > 0]
    return float(np.exp(-np.sum(p * np.log(p))))


def occurrences(
    embeddings: arguments.Embeddings, *, neighbours: int = 10
) -> Int[np.ndarray, "examples"]:
    """How often each example is among the nearest of another; a hub is so very often.

    Radovanović et al. 2010. The mean is the number of neighbours.

    Raises:
      InputError: there are not that many others.
    """
    _, position = evaluation.nearest(embeddings, None, neighbours=neighbours)
    return np.bincount(position.reshape(-1), minlength=len(position))


def hubness(embeddings: arguments.Embeddings, *, neighbours: int = 10) -> float:
    """The skewness of `occurrences`: near 0 without hubs, large with some; 0 if all are alike."""
    found = occurrences(embeddings, neighbours=neighbours).astype(np.float64)
    centred = found - found.mean()
    deviation = centred.std()
    return float(np.mean(centred**3) / deviation**3) if deviation > 0 else 0.0


def cka(a: arguments.Embeddings, b: arguments.Embeddings) -> float:
    """How alike two embeddings of the same examples are, whatever their rotation and scale.

    Linear CKA (Kornblith et al. 2019): `|B'A|^2 / (|A'A| |B'B|)` of centred A and B, in
    Frobenius norms; 1 for the same up to rotation and scale, near 0 for unrelated ones with many
    examples. NaN if one of them is a single point.

    Raises:
      InputError: they are not of as many examples.
    """
    a, b = (arguments.finite_rows(x, name=name) for x, name in ((a, "a"), (b, "b")))
    if len(a) != len(b):
        raise errors.InputError(
            f"Two embeddings of the same examples are needed, but there are {len(a)} and {len(b)}."
        )
    a, b = (x.astype(np.float64) - np.mean(x, axis=0, dtype=np.float64) for x in (a, b))
    scale = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / scale) if scale > 0 else float("nan")
