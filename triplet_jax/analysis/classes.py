"""Which classes lie tight and apart, and which are confused."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.spatial.distance
from jaxtyping import Float, Int

from triplet_jax import arguments, errors, evaluation

METHODS = ("kmeans", "agglomerative")


def statistics(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    class_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A row for each class, in the order of the labels.

    Args:
      embeddings: the examples.
      labels: their classes, indices into `class_names` if it is given.
      class_names: names; None calls classes by their numbers.

    Returns:
      Columns
      * `label`, `name`, `examples`.
      * `spread`: the root mean squared distance of its examples to their mean.
      * `nearest`, `to_nearest`: the class whose mean is nearest to its own, and how far.
      * `separation`: `to_nearest` over the sum of the two spreads; below 1 they overlap.
      * `silhouette`: the mean over its examples (Rousseeuw 1987): 1 far apart, 0 on the border,
        negative inside another class. 0 for an example alone in its class.
      * `map_at_r`, `precision_at_1`: of its examples as queries among all others; NaN for one
        alone.

    Raises:
      InputError: there is only one class.
    """
    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    present = np.unique(labels)
    _need_two(present)
    x = embeddings.astype(np.float64)
    centres, spread = _centres(x, labels, present)
    between = scipy.spatial.distance.cdist(centres, centres)
    np.fill_diagonal(between, np.inf)
    nearest = between.argmin(axis=1)
    to_nearest = between[np.arange(len(present)), nearest]
    of_query = evaluation.retrieval_of_queries(embeddings, labels)
    of_query = {name: of_query[name] for name in ("map_at_r", "precision_at_1")}
    of_query["silhouette"] = _silhouettes(x, labels)
    names = _names(present, class_names)
    means = pd.DataFrame(of_query).groupby(labels).mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        separation = to_nearest / (spread + spread[nearest])
    return pd.DataFrame(
        {
            "label": present,
            "name": names,
            "examples": np.bincount(np.searchsorted(present, labels)),
            "spread": spread,
            "nearest": [names[i] for i in nearest],
            "to_nearest": to_nearest,
            "separation": separation,
            "silhouette": means.silhouette.to_numpy(),
            "map_at_r": means.map_at_r.to_numpy(),
            "precision_at_1": means.precision_at_1.to_numpy(),
        }
    )


def confusion(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    class_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Of each class's examples (rows), the share whose nearest neighbour is of each class."""
    embeddings = arguments.finite_rows(embeddings)
    present, codes = arguments.codes(labels, embeddings.shape)
    _, position = evaluation.nearest(embeddings, None, neighbours=1)
    counts = np.zeros((len(present), len(present)))
    np.add.at(counts, (codes, codes[position[:, 0]]), 1)
    names = _names(present, class_names)
    return pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), index=names, columns=names)


def most_confused(table: pd.DataFrame, *, pairs: int = 10) -> pd.DataFrame:
    """The pairs of classes that `confusion` found most often, with `share` of both directions."""
    both = (table.to_numpy() + table.to_numpy().T) / 2
    first, second = np.triu_indices(len(both), 1)
    order = np.argsort(-both[first, second], kind="stable")[:pairs]
    names = table.index.to_numpy()
    return pd.DataFrame(
        {
            "class": names[first[order]],
            "other": names[second[order]],
            "share": both[first, second][order],
        }
    )


def clusters(
    embeddings: arguments.Embeddings,
    number: int,
    *,
    method: str = "kmeans",
    seed: int = 0,
) -> Int[np.ndarray, "examples"]:
    """Clusters found without labels: "kmeans", or "agglomerative" by Ward's criterion.

    Raises:
      InputError: the method is not known, or there are fewer examples than clusters.
    """
    import sklearn.cluster

    errors.check_known("method", method, METHODS)
    embeddings = arguments.finite_rows(embeddings)
    if not 1 <= number <= len(embeddings):
        raise errors.InputError(f"number={number} must be in [1, {len(embeddings)}].")
    if method == "kmeans":
        found = sklearn.cluster.KMeans(number, n_init=3, random_state=seed)
    else:
        found = sklearn.cluster.AgglomerativeClustering(number)
    return found.fit_predict(embeddings.astype(np.float64))


def tree(
    embeddings: arguments.Embeddings, labels: arguments.Labels
) -> Float[np.ndarray, "merges 4"]:
    """Classes joined step by step, the nearest first: Ward's criterion on their means.

    Returns:
      A linkage as scipy has it, over the classes that occur in the order of their labels.

    Raises:
      InputError: there is only one class.
    """
    import scipy.cluster.hierarchy

    embeddings = arguments.finite_rows(embeddings)
    labels = np.asarray(arguments.labels(labels, embeddings.shape))
    present = np.unique(labels)
    _need_two(present)
    centres, _ = _centres(embeddings.astype(np.float64), labels, present)
    return scipy.cluster.hierarchy.linkage(centres, method="ward", optimal_ordering=True)


def _need_two(present):
    if len(present) < 2:
        raise errors.InputError("There is only one class; at least two are needed.")


def _names(present, class_names):
    return [str(c) if class_names is None else str(class_names[c]) for c in present]


def _centres(x, labels, present):
    members = [x[labels == c] for c in present]
    centres = np.stack([m.mean(axis=0) for m in members])
    squared = [np.mean(np.sum((m - c) ** 2, axis=1)) for m, c in zip(members, centres, strict=True)]
    return centres, np.sqrt(squared)


def _silhouettes(x, labels):
    import sklearn.metrics

    if len(np.unique(labels)) == len(labels):
        return np.zeros(len(labels))
    return sklearn.metrics.silhouette_samples(x, labels)
