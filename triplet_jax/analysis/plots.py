"""Pictures of embeddings, from arrays."""

import matplotlib.axes
import numpy as np
import sklearn.manifold
from jaxtyping import Float, Int


def draw_map(
    axes: matplotlib.axes.Axes,
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    class_names: tuple[str, ...],
    seed: int = 0,
) -> None:
    """Draws embeddings in two dimensions by t-SNE, a colour and a name for each class.

    Distances between far groups mean nothing in such a map (van der Maaten and Hinton
    2008); what it shows is which classes lie apart.

    Args:
      axes: where to draw.
      embeddings: the examples.
      labels: their classes, an index into `class_names`; ten classes or fewer have a colour
        of their own.
      class_names: written at the median of each class.
      seed: of the map.
    """
    points = sklearn.manifold.TSNE(random_state=seed, init="pca").fit_transform(embeddings)
    for c in np.unique(labels):
        mine = points[labels == c]
        axes.scatter(*mine.T, s=6, color=f"C{c % 10}", linewidths=0)
        axes.annotate(
            class_names[c],
            np.median(mine, axis=0),
            ha="center",
            va="center",
            weight="bold",
            bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )
    axes.set_xticks([])
    axes.set_yticks([])
