"""How well clusters that are found without labels agree with the classes."""

import warnings

import numpy as np

from triplet_jax import arguments


def clustering(
    embeddings: arguments.Embeddings, labels: arguments.Labels, *, seed: int = 0
) -> dict[str, int | float]:
    """How well k-means finds the classes, where k is the number of classes.

    Rows with NaN or infinite values are left out and counted. k-means starts from centres drawn by
    k-means++ and runs once. The measures are those of Vinh, Epps and Bailey 2010,
    https://jmlr.org/papers/v11/vinh10a.html.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[examples]`, of whole numbers or strings.
      seed: of the initial centres.

    Returns:
      What `agreement` returns, `clusters`, the number k, and `examples_not_finite`. With one class,
      or as many classes as examples, only the last two.

    Raises:
      InputError: an array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.clustering([[0.0], [0.1], [5.0], [5.1]], ["a", "a", "b", "b"])
      >>> print(f"{found['nmi']:.2f} of {found['clusters']} clusters")
      1.00 of 2 clusters
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

    # k-means++ in float64, because scikit-learn would convert float32 for every centre, and with 3
    # trials a centre, because its default of 2 + log k takes most of the time.
    centres, _ = sklearn.cluster.kmeans_plusplus(x, clusters, random_state=seed, n_local_trials=3)
    means = sklearn.cluster.KMeans(clusters, init=centres.astype(np.float32), n_init=1)
    with warnings.catch_warnings():
        # Where there are fewer different rows than classes, some clusters stay empty.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        return means.fit_predict(x.astype(np.float32))


def agreement(labels: arguments.Labels, found: arguments.Labels) -> dict[str, int | float]:
    """How well clusters agree with classes.

        nmi = I(classes, clusters) / mean of H(classes) and H(clusters)
        ami = (I - E[I]) / (mean of H(classes) and H(clusters) - E[I])

    I is the mutual information, H the entropy, and E[I] what I is expected to be by chance. NMI is
    in [0, 1] and AMI at most 1: 1 is full agreement, and random clusters have an AMI of 0. Vinh,
    Epps and Bailey 2010, https://jmlr.org/papers/v11/vinh10a.html.

    Args:
      labels: the class of each example, a list or an array of shape `[examples]`.
      found: the cluster of each example, in the same form.

    Returns:
      `nmi` and `ami`. With one class, or with as many classes or clusters as examples, any clusters
      would score 1 or 0, and the result is empty.

    Raises:
      InputError: the two differ in length, or have another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.agreement(["a", "a", "b", "b"], [7, 7, 3, 3])
      >>> print(f"{found['nmi']:.2f} {found['ami']:.2f}")
      1.00 1.00
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
