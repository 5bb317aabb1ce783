"""Maps of embeddings in two dimensions. Each with a seed gives the same map again."""

import numpy as np
from jaxtyping import Float

from triplet_jax import arguments, errors

# With fewer, t-SNE and UMAP fail or have nothing to preserve.
_FEWEST = 5


def pca(embeddings: arguments.Embeddings, *, seed: int = 0) -> Float[np.ndarray, "examples 2"]:
    """The two directions of largest variance; distances in it are never too large.

    Each direction points where its largest coefficient is positive, so that it does not flip. A
    direction that is not there, as with embeddings of one value or with one example, is 0.

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
    """Neighbours stay neighbours; distances between far groups mean nothing.

    van der Maaten and Hinton 2008, as scikit-learn has it, from `start`, another map of the same
    examples, or from the PCA. Fewer than five examples have no neighbours to tell from others, and
    are shown by their PCA.

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
    """As t-SNE, with more of the distances between groups (McInnes et al. 2018).

    Fewer than five examples are shown by their PCA.

    Raises:
      InputError: umap-learn is not installed, or a row has NaN or infinite values.
    """
    embeddings = arguments.finite_rows(embeddings)
    try:
        from umap import UMAP
    except ImportError as error:
        raise errors.InputError("umap needs umap-learn: pip install umap-learn") from error
    if len(embeddings) < _FEWEST:
        return pca(embeddings)
    # It looks at 15 neighbours unless it is told otherwise.
    neighbours = min(15, len(embeddings) - 1)
    method = UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
    return np.asarray(method.fit_transform(embeddings))


PROJECTIONS = {"pca": pca, "tsne": tsne, "umap": umap}
