"""Statistics of classes: how tight each is, how far apart they lie, and which are confused."""

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
    """Measures every class.

    Args:
      embeddings: the examples, `[examples, dim]`.
      labels: their classes, `[examples]`; indices into `class_names` if it is given.
      class_names: the names of the classes; None calls them by their labels.

    Returns:
      A row for each class, in the order of the labels, with the columns

      * `label`, `name`, `examples`: the class, and how many examples it has.
      * `spread`: the root mean squared distance of its examples to their mean.
      * `nearest`, `to_nearest`: the class with the nearest mean, and the distance of the means.
      * `separation`: `to_nearest` over the sum of the two spreads; below 1 the classes overlap.
      * `silhouette`: the mean over its examples (Rousseeuw 1987,
        https://doi.org/10.1016/0377-0427(87)90125-7), from 1 (far from other classes) over 0 (on a
        border) to -1 (inside another class). An example alone in its class counts as 0.
      * `map_at_r`, `precision_at_1`: the scores of its examples as queries among all others; NaN
        for a class of one example.

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
    """How often the nearest neighbour of an example of one class is of another class.

    Returns:
      A row for each class: the share of its examples whose nearest neighbour is of the class of
      the column.
    """
    embeddings = arguments.finite_rows(embeddings)
    present, codes = arguments.codes(labels, embeddings.shape)
    _, position = evaluation.nearest(embeddings, None, neighbours=1)
    counts = np.zeros((len(present), len(present)))
    np.add.at(counts, (codes, codes[position[:, 0]]), 1)
    names = _names(present, class_names)
    return pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), index=names, columns=names)


def most_confused(table: pd.DataFrame, *, pairs: int = 10) -> pd.DataFrame:
    """The most confused pairs of classes, the worst first.

    Args:
      table: from `confusion`.
      pairs: how many pairs to return.

    Returns:
      Columns `class`, `other` and `share`, the mean of the shares in both directions.
    """
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
    """Clusters examples without their labels.

    Args:
      embeddings: the examples, `[examples, dim]`.
      number: how many clusters to make.
      method: "kmeans", or "agglomerative" by Ward's criterion.
      seed: decides where k-means starts.

    Returns:
      The cluster of every example, a number from 0.

    Raises:
      InputError: the method is not known, or there are fewer examples than clusters.
    """
    import sklearn.cluster

    errors.check_known("method", method, METHODS)
    embeddings = arguments.finite_rows(embeddings)
    if not 1 <= number <= len(embeddings):
        raise errors.InputError(f"number={number} must be in [1, {len(embeddings)}].")
    if number == 1:
        return np.zeros(len(embeddings), np.int64)
    if method == "kmeans":
        found = sklearn.cluster.KMeans(number, n_init=3, random_state=seed)
    else:
        found = sklearn.cluster.AgglomerativeClustering(number)
    return found.fit_predict(embeddings.astype(np.float64))


def tree(
    embeddings: arguments.Embeddings, labels: arguments.Labels
) -> Float[np.ndarray, "merges 4"]:
    """Joins classes step by step, the nearest first, by Ward's criterion on their means.

    Returns:
      A linkage of `scipy.cluster.hierarchy` over the classes that occur, in the order of their
      labels.

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


def _need_two(present: np.ndarray) -> None:
    if len(present) < 2:
        raise errors.InputError("There is only one class; at least two are needed.")


def _names(present: np.ndarray, class_names: Sequence[str] | None) -> list[str]:
    return [str(c) if class_names is None else str(class_names[c]) for c in present]


def _centres(
    x: Float[np.ndarray, "examples dim"], labels: np.ndarray, present: np.ndarray
) -> tuple[Float[np.ndarray, "classes dim"], Float[np.ndarray, "classes"]]:
    """The mean of each class, and its spread."""
    members = [x[labels == c] for c in present]
    centres = np.stack([m.mean(axis=0) for m in members])
    squared = [np.mean(np.sum((m - c) ** 2, axis=1)) for m, c in zip(members, centres, strict=True)]
    return centres, np.sqrt(squared)


def _silhouettes(
    x: Float[np.ndarray, "examples dim"], labels: np.ndarray
) -> Float[np.ndarray, "examples"]:
    import sklearn.metrics

    if len(np.unique(labels)) == len(labels):
        return np.zeros(len(labels))
    return sklearn.metrics.silhouette_samples(x, labels)
