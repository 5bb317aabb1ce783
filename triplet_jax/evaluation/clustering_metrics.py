"""How well clusters that are found without labels agree with the classes."""

import warnings

import numpy as np

from triplet_jax import arguments


def clustering(
    embeddings: arguments.Embeddings, labels: arguments.Labels, *, seed: int = 0
) -> dict[str, int | float]:
    """How well k-means finds the classes, k being their number.

    Rows with NaN or infinite values are left out, and counted.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[examples]`, of whole numbers or strings.
      seed: of the initial centres.

    Returns:
      What `agreement` returns, `clusters`, and `examples_not_finite`.

    Raises:
      InputError: an array has another shape or type.
    """
    x = arguments.embeddings(embeddings)
    _, labels = arguments.codes(labels, x.shape)
    finite = np.isfinite(x).all(axis=1)
    counts = {"examples_not_finite": int((~finite).sum())}
    x, labels = x[finite].astype(np.float64), labels[finite]
    clusters = len(np.unique(labels))
    if not _can_tell(clusters, clusters, len(labels)):
        return {"clusters": clusters} | counts
    return agreement(labels, _k_means(x, clusters, seed)) | {"clusters": clusters} | counts


def _k_means(x, clusters, seed):
    import sklearn.cluster
    import sklearn.exceptions

    # k-means++ in float64 with 3 trials a centre: in float32 scikit-learn converts all of x
    # for every centre, and with its default of 2 + log k trials it takes most of the time.
    centres, _ = sklearn.cluster.kmeans_plusplus(x, clusters, random_state=seed, n_local_trials=3)
    means = sklearn.cluster.KMeans(clusters, init=centres.astype(np.float32), n_init=1)
    with warnings.catch_warnings():
        # With fewer different rows than classes some clusters stay empty.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        return means.fit_predict(x.astype(np.float32))


def agreement(labels: arguments.Labels, found: arguments.Labels) -> dict[str, int | float]:
    """How well clusters agree with classes.

    Args:
      labels: the class of each example, a list or an array of shape `[examples]`.
      found: the cluster of each.

    Returns:
      `nmi`, the mutual information of clusters and classes over the mean of their entropies, and
      `ami`, the same adjusted for chance. Both are left out where they can tell nothing: with one
      class, or as many classes or clusters as examples, any answer would score 1 or 0.

    Raises:
      InputError: the two are not of one length, or have another shape or type.
    """
    import sklearn.metrics

    classes, labels = arguments.codes(labels, np.shape(found), rows="found")
    clusters, found = arguments.codes(found, labels.shape, name="found", rows="labels")
    if not _can_tell(len(classes), len(clusters), len(labels)):
        return {}
    return {
        "nmi": float(sklearn.metrics.normalized_mutual_info_score(labels, found)),
        "ami": float(sklearn.metrics.adjusted_mutual_info_score(labels, found)),
    }


def _can_tell(classes, clusters, examples):
    return 2 <= classes < examples and clusters < examples
