"""A first embedding head that keeps what the backbone's features tell apart."""

import numpy as np
from jaxtyping import Float


def head(
    features: Float[np.ndarray, "examples features"], dim: int
) -> dict[str, Float[np.ndarray, "..."]]:
    """The linear map onto the principal axes of features, half whitened.

    A random head mixes the features and loses part of what they tell apart. This one starts from
    principal component analysis: value i of an embedding is `v_i . (x - mean) / s_i^(1/2)`, where
    `v_i` are the eigenvectors of the features' covariance and `s_i^2` its eigenvalues, from the
    largest on. Division by `s_i` would be whitening (Jegou and Chum 2012,
    https://doi.org/10.1007/978-3-642-33709-3_55), which makes noise as large as signal; its root is
    half of that. Where there are fewer axes than values, random axes fill the rest, with the weight
    of the first axis. The weights have the size that a random head has.

    >>> made = head(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [4.0, 1.0]]), 2)
    >>> print(made["kernel"].round(2))
    [[0.63 0.  ]
     [0.   1.26]]

    Args:
      features: of the training examples.
      dim: the number of values of an embedding.

    Returns:
      `kernel`, `[features, dim]`, and `bias`, `[dim]`, of float32.
    """
    size = features.shape[1]
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features.astype(np.float64) - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / max(1, len(features) - 1))
    variances, axes = variances[::-1], axes[:, ::-1]
    told = int(np.sum(variances > np.finfo(np.float32).eps * variances[0]))
    taken = min(dim, told)
    deviations, axes = np.sqrt(variances[:taken]), axes[:, :taken]
    axes = axes * np.where(axes.sum(axis=0) < 0, -1.0, 1.0)
    kernel = axes / np.sqrt(deviations)
    if taken < dim:
        first = deviations[0] if taken else 1.0
        more = np.random.default_rng(0).normal(size=(size, dim - taken))
        more -= axes @ (axes.T @ more)
        more /= np.maximum(np.linalg.norm(more, axis=0), 1e-12) * np.sqrt(first)
        kernel = np.concatenate([kernel, more], axis=1)
    kernel *= 1 / np.sqrt(size * np.mean(kernel**2))
    return {"kernel": kernel.astype(np.float32), "bias": (-mean @ kernel).astype(np.float32)}
