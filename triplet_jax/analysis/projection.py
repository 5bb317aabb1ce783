"""Maps of embeddings in two dimensions. Each with a seed gives the same map again."""

import numpy as np
from jaxtyping import Float

from triplet_jax import errors


def pca(
    embeddings: Float[np.ndarray, "examples dim"], *, seed: int = 0
) -> Float[np.ndarray, "examples 2"]:
    """The two directions of largest variance; distances in it are never too large.

    Each direction points where its largest coefficient is positive, so that it does not flip.
    """
    del seed  # nothing is drawn
    x = np.asarray(embeddings, np.float64)
    centred = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(2), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return (centred @ axes.T).astype(np.float32)


def tsne(
    embeddings: Float[np.ndarray, "examples dim"],
    *,
    seed: int = 0,
    start: Float[np.ndarray, "examples 2"] | None = None,
) -> Float[np.ndarray, "examples 2"]:
    """Neighbours stay neighbours; distances between far groups mean nothing.

    van der Maaten and Hinton 2008, as scikit-learn has it, from `start`, another map of the same
    examples, or from the PCA.
    """
    import sklearn.manifold

    begin = pca(embeddings) if start is None else start
    begin = 1e-4 * begin / max(float(np.std(begin[:, 0])), 1e-12)
    perplexity = min(30.0, max(1.0, (len(embeddings) - 1) / 3))
    method = sklearn.manifold.TSNE(perplexity=perplexity, init=begin, random_state=seed)
    return method.fit_transform(np.asarray(embeddings, np.float32))


def umap(
    embeddings: Float[np.ndarray, "examples dim"], *, seed: int = 0
) -> Float[np.ndarray, "examples 2"]:
    """As t-SNE, with more of the distances between groups (McInnes et al. 2018).

    Raises:
      InputError: umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise errors.InputError("umap needs umap-learn: pip install umap-learn") from error
    method = UMAP(random_state=seed, n_jobs=1)
    return np.asarray(method.fit_transform(np.asarray(embeddings, np.float32)))


PROJECTIONS = {"pca": pca, "tsne": tsne, "umap": umap}
