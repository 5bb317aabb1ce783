"""Projects embeddings to maps of two dimensions; the same seed gives the same map."""

import numpy as np
from jaxtyping import Float

from triplet_jax import arguments, errors

# With fewer examples, t-SNE and UMAP fail or have nothing to preserve.
_FEWEST = 5


def pca(embeddings: arguments.Embeddings, *, seed: int = 0) -> Float[np.ndarray, "examples 2"]:
    """Projects to the two directions of largest variance; no distance becomes larger.

    The sign of a direction makes its largest coefficient positive, so that maps do not flip. A
    missing direction, as with embeddings of one value or a single example, gives zeros.

    >>> pca([[1.0, 0.0], [-1.0, 0.0]])
    array([[ 1.,  0.],
           [-1.,  0.]], dtype=float32)

    Args:
      embeddings: the examples, `[examples, dim]`.
      seed: not used; every projection takes one.

    Raises:
      InputError: a row has NaN or infinite values.
    """
    del seed  # nothing is drawn
    x = arguments.finite_rows(embeddings).astype(np.float64)
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    points = (centred @ axes.T).astype(np.float32)
    return np.pad(points, ((0, 0), (0, 2 - len(axes))))


def tsne(
    embeddings: arguments.Embeddings,
    *,
    seed: int = 0,
    start: Float[np.ndarray, "examples 2"] | None = None,
) -> Float[np.ndarray, "examples 2"]:
    """t-SNE: neighbours stay neighbours, but distances between far groups mean nothing.

    van der Maaten and Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html, as scikit-learn
    has it. Fewer than five examples are shown by their PCA.

    Args:
      embeddings: the examples, `[examples, dim]`.
      seed: decides the random choices of the method.
      start: the map to start from, such as that of another run; None starts from the PCA.

    Raises:
      InputError: a row has NaN or infinite values.
    """
    import sklearn.manifold

    embeddings = arguments.finite_rows(embeddings)
    begin = pca(embeddings) if start is None else start
    if len(embeddings) < _FEWEST:
        return begin
    begin = 1e-4 * begin / max(float(np.std(begin[:, 0])), 1e-12)
    perplexity = min(30.0, max(1.0, (len(embeddings) - 1) / 3))
    method = sklearn.manifold.TSNE(perplexity=perplexity, init=begin, random_state=seed)
    return method.fit_transform(embeddings)


def umap(embeddings: arguments.Embeddings, *, seed: int = 0) -> Float[np.ndarray, "examples 2"]:
    """UMAP: neighbours stay neighbours, as in t-SNE, and groups keep more of their distances.

    McInnes et al. 2018, https://arxiv.org/abs/1802.03426, as umap-learn has it. Fewer than five
    examples are shown by their PCA.

    Args:
      embeddings: the examples, `[examples, dim]`.
      seed: decides the random choices of the method.

    Raises:
      InputError: umap-learn is not installed, or a row has NaN or infinite values.
    """
    embeddings = arguments.finite_rows(embeddings)
    try:
        from umap import UMAP
    except ImportError as error:
        raise errors.InputError(
            "umap needs umap-learn: pip install 'triplet_jax[umap]', or pip install umap-learn"
        ) from error
    if len(embeddings) < _FEWEST:
        return pca(embeddings)
    # 15 is its default.
    neighbours = min(15, len(embeddings) - 1)
    method = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return np.asarray(method.fit_transform(embeddings))


PROJECTIONS = {"pca": pca, "tsne": tsne, "umap": umap}
