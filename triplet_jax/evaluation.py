"""How good an embedding is: retrieval, few-shot classification, verification, clustering.

All of them take embeddings and integer labels, and say in their result what they
counted. Nearest neighbours are exact and found tile by tile: no matrix of all distances
ever exists.

scikit-learn takes longer to import than all the rest, so what needs it imports it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from triplet_jax import distances, errors, hosts

TILE = 256


def nearest(
    queries: Float[np.ndarray, "queries dim"],
    references: Float[np.ndarray, "references dim"] | None,
    *,
    neighbours: int,
    metric: str = "euclidean",
) -> tuple[Float[np.ndarray, "queries neighbours"], Int[np.ndarray, "queries neighbours"]]:
    """The nearest references of every query, nearest first.

    Args:
      queries: the queries.
      references: where to look; None looks among the queries, of which none is its own
        neighbour.
      neighbours: how many, at most the number of references (less one if they are the
        queries).
      metric: a name in `distances.METRICS`, of one that has no parameters.

    Returns:
      Distances, and positions among the references. Of equally near references the one
      with the smaller position comes first.

    Raises:
      InputError: the metric is not known, or there are not that many references.
    """
    errors.check_known("metric", metric, distances.METRICS)
    among = len(queries) - 1 if references is None else len(references)
    if not 1 <= neighbours <= among:
        raise errors.InputError(
            f"neighbours={neighbours} must be in [1, {among}]: there are no more to look among."
        )
    found = _nearest(
        jnp.asarray(queries, jnp.float32),
        jnp.asarray(queries if references is None else references, jnp.float32),
        neighbours=neighbours,
        metric=metric,
        exclude_self=references is None,
    )
    return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnames=("neighbours", "metric", "exclude_self"))
def _nearest(queries, references, *, neighbours, metric, exclude_self):
    def with_distances(some, rows, position):
        to_found = jax.vmap(lambda q, p: distances.pairwise(q[None], references[p], metric)[0])
        return to_found(some, position), position

    return _over_tiles(
        with_distances,
        queries,
        references,
        neighbours=neighbours,
        metric=metric,
        exclude_self=exclude_self,
    )


def _over_tiles(use, queries, references, *, neighbours, metric, exclude_self, first=0):
    """`use(queries, rows, position)` of every tile of queries, put together again.

    `position` are the nearest references `[tile, neighbours]`, `rows` the numbers of the
    queries, the first of which is `first`; what `use` returns has a leading axis of queries.
    """
    rank = make_rank(references, metric)

    def of_tile(rows, some):
        rows = first + rows
        if not exclude_self:
            return use(some, rows, jax.lax.top_k(rank(some), neighbours)[1])
        # One more, from which the query itself is dropped (the last, if many are as near).
        _, position = jax.lax.top_k(rank(some), neighbours + 1)
        others = jnp.argsort(position == rows[:, None], stable=True)[:, :neighbours]
        return use(some, rows, jnp.take_along_axis(position, others, axis=1))

    return by_tiles(of_tile, queries)


def by_tiles(
    of_tile: Callable[[Int[Array, "tile"], Float[Array, "tile dim"]], PyTree],
    queries: Float[Array, "queries dim"],
) -> PyTree:
    """`of_tile(rows, some)` of every tile of queries, put together again.

    `rows` are the numbers of the queries `some`; those of the last tile may go beyond the end, and
    what it gives for them is dropped.
    """
    tile = min(TILE, len(queries))
    tiles = -(-len(queries) // tile)
    padded = jnp.pad(queries, ((0, tiles * tile - len(queries)), (0, 0)))

    def of_number(number_and_queries):
        number, some = number_and_queries
        return of_tile(number * tile + jnp.arange(tile), some)

    whole = padded.reshape(tiles, tile, padded.shape[1])
    parts = jax.lax.map(of_number, (jnp.arange(tiles), whole))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: len(queries)], parts)


def make_rank(references: Float[Array, "references dim"], metric: str) -> Callable:
    """A function of queries whose values are larger the nearer a reference is.

    For the Euclidean distance `q.r - |r|^2 / 2` from the references' centre, and `q.r / |r|` for
    the cosine: one matrix product, with the bias as one more dimension, is half the work of the
    distances.
    """
    if metric in ("euclidean", "squared_euclidean"):
        centre = _centre(references)
        references = references - centre
        bias = -0.5 * jnp.sum(references**2, axis=1, keepdims=True)
        columns = jnp.concatenate([references, bias], axis=1).T

        def rank(q):
            q = jnp.pad(q - centre, ((0, 0), (0, 1)), constant_values=1.0)
            return distances.product(q, columns)

        return rank
    if metric == "cosine":
        columns = distances.unit(references).T
        return lambda q: distances.product(q, columns)
    return lambda q: -distances.pairwise(q, references, metric)


def _centre(x):
    """The mean, as a multiple of a power of two near the spread: less it, whole numbers stay whole,
    and ties stay ties."""
    mean = jnp.mean(x, axis=0)
    spread = jnp.std(x - mean)
    step = jnp.exp2(jnp.floor(jnp.log2(jnp.where(spread > 0, spread, 1.0))))
    centre = jnp.round(mean / step) * step
    return jnp.where(jnp.isfinite(centre), centre, 0.0)  # one bad row spoils its own rank alone


def retrieval(
    embeddings: Float[np.ndarray, "queries dim"],
    labels: Int[np.ndarray, "queries"],
    *,
    references: Float[np.ndarray, "references dim"] | None = None,
    reference_labels: Int[np.ndarray, "references"] | None = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, float]:
    """Precision at 1, Recall at k, R-precision and MAP@R.

    With R the number of references that share a query's label (its positives), and
    rel(i) 1 where the i-th nearest is one of them:

        precision at 1   rel(1)
        recall at k      1 if any of rel(1) .. rel(k) is 1
        R-precision      sum_{i <= R} rel(i) / R
        MAP@R            sum_{i <= R} rel(i) precision(i) / R

    with precision(i) = sum_{j <= i} rel(j) / i; each averaged over queries. They are those
    of Musgrave et al. 2020, "A Metric Learning Reality Check". A query without positives
    has none of these: it is left out and counted. Of equally near references the one with
    the smaller position comes first. In a run of several processes all of them call it, with the
    same arrays: each measures a share of the queries.

    Args:
      embeddings: the queries.
      labels: their classes; any integers.
      references: where to look; None looks among the queries, of which none is its own
        neighbour.
      reference_labels: their classes.
      metric: a name in `distances.METRICS`, of one that has no parameters.
      ks: the k of Recall at k; one larger than the number of references is cut to it.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision`, `map_at_r`, `queries`, the number
      that counted, and `queries_without_positives`. NaN where no query counts.

    Raises:
      InputError: the metric is not known, references come without labels, or a k is below 1.
    """
    of_query, positives = _of_queries(
        embeddings, labels, references, reference_labels, metric, tuple(ks)
    )
    counted = positives > 0
    counts = {
        "queries": int(counted.sum()),
        "queries_without_positives": int((~counted).sum()),
    }
    if not counted.any():
        return dict.fromkeys(of_query, math.nan) | counts
    means = {name: float(of_query[name][counted].mean(dtype=np.float64)) for name in of_query}
    return means | counts


def retrieval_of_queries(
    embeddings: Float[np.ndarray, "queries dim"],
    labels: Int[np.ndarray, "queries"],
    *,
    references: Float[np.ndarray, "references dim"] | None = None,
    reference_labels: Int[np.ndarray, "references"] | None = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, Float[np.ndarray, "queries"]]:
    """What `retrieval` takes the mean of: each number for every query, NaN without positives.

    Arguments and errors are those of `retrieval`.
    """
    of_query, positives = _of_queries(
        embeddings, labels, references, reference_labels, metric, tuple(ks)
    )
    return {name: np.where(positives > 0, x, np.nan) for name, x in of_query.items()}


def retrieval_of_pairs(
    first: Float[np.ndarray, "pairs dim"],
    second: Float[np.ndarray, "pairs dim"],
    *,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 5, 8, 10),
) -> dict[str, dict[str, float]]:
    """Whether each row of one array finds its partner among all rows of the other, both ways.

    A query has one positive, so that P@1, R-precision and MAP@R are all Recall at 1.

    Args:
      first: embeddings, of which row i belongs to row i of `second`.
      second: the partners.
      metric: a name in `distances.METRICS`, of one that has no parameters.
      ks: the k of Recall at k.

    Returns:
      `first_to_second` and `second_to_first`, each what `retrieval` returns, and `retrieval`, the
      mean of the two.

    Raises:
      InputError: the metric is not known.
    """
    number = np.arange(len(first))
    found = {
        way: retrieval(
            queries, number, references=among, reference_labels=number, metric=metric, ks=ks
        )
        for way, queries, among in (
            ("first_to_second", first, second),
            ("second_to_first", second, first),
        )
    }
    return {"retrieval": jax.tree.map(lambda a, b: (a + b) / 2, *found.values())} | found


def _of_queries(embeddings, labels, references, reference_labels, metric, ks):
    """The metrics of every query, and how many positives it has."""
    errors.check_known("metric", metric, distances.METRICS)
    if min(ks, default=1) < 1:
        raise errors.InputError(f"ks={ks} must be at least 1 each.")
    if (references is None) != (reference_labels is None):
        raise errors.InputError("references and reference_labels are given together or not at all.")
    labels = np.asarray(labels)
    among = labels if references is None else np.asarray(reference_labels)
    classes, codes = np.unique(np.concatenate([labels, among]), return_inverse=True)
    query_codes, reference_codes = codes[: len(labels)], codes[-len(among) :]
    positives = np.bincount(reference_codes, minlength=len(classes))[query_codes]
    available = len(among)
    if references is None:
        positives, available = positives - 1, available - 1
    names = ["precision_at_1", *(f"recall_at_{k}" for k in ks), "r_precision", "map_at_r"]
    if not (positives > 0).any():
        return dict.fromkeys(names, np.zeros(len(labels))), positives
    # Each process of a run looks for the neighbours of its share.
    own, first = hosts.own_share(np.asarray(embeddings, np.float32))
    of_query = _retrieval(
        jnp.asarray(own),
        jnp.asarray(embeddings if references is None else references, jnp.float32),
        jnp.asarray(query_codes, jnp.int32),
        jnp.asarray(reference_codes, jnp.int32),
        jnp.asarray(positives, jnp.int32),
        neighbours=int(min(max(positives.max(), 1, *ks), available)),
        metric=metric,
        exclude_self=references is None,
        ks=ks,
        first=jnp.int32(first),
    )
    of_query = hosts.all_shares(jax.tree.map(np.asarray, of_query), len(labels))
    return {name: of_query[name] for name in names}, positives


@functools.partial(jax.jit, static_argnames=("neighbours", "metric", "exclude_self", "ks"))
def _retrieval(
    queries,
    references,
    codes,
    reference_codes,
    positives,
    *,
    neighbours,
    metric,
    exclude_self,
    ks,
    first,
):
    """The metrics of every query; those of one without positives mean nothing."""
    rank = jnp.arange(1, neighbours + 1)

    def measure(_, rows, position):
        relevant = reference_codes[position] == codes.at[rows].get(mode="clip")[:, None]
        r = jnp.maximum(positives.at[rows].get(mode="clip"), 1)
        hits = jnp.cumsum(relevant, axis=1)
        within = relevant & (rank <= r[:, None])
        recall = {f"recall_at_{k}": hits[:, min(k, neighbours) - 1] > 0 for k in ks}
        return recall | {
            "precision_at_1": relevant[:, 0],
            "r_precision": within.sum(axis=1) / r,
            "map_at_r": jnp.where(within, hits / rank, 0.0).sum(axis=1) / r,
        }

    return _over_tiles(
        measure,
        queries,
        references,
        neighbours=neighbours,
        metric=metric,
        exclude_self=exclude_self,
        first=first,
    )


def few_shot(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    ways: int,
    shots: int,
    episodes: int,
    seed: int,
    queries: int = 5,
    groups: Int[np.ndarray, "examples"] | None = None,
) -> dict[str, float]:
    """Accuracy of classification by the nearest prototype, the mean of a class's shots.

    An episode draws `ways` classes and from each, without replacement, `shots` examples
    for the prototype and `queries` to classify by Euclidean distance (Snell et al. 2017).

    Args:
      embeddings: the examples.
      labels: their classes.
      ways: classes in an episode.
      shots: examples a prototype.
      episodes: how many episodes.
      seed: of the draws.
      queries: examples to classify from each class.
      groups: of every example; then the classes of an episode share a group, which is
        drawn first. Within Omniglot's alphabets this is the harder task of Lake et al. 2015.

    Returns:
      `accuracy`, the mean over episodes; `ci95`, half the width of its 95% interval, 1.96
      standard errors; and `episodes`, `ways`, `shots`, `queries`.

    Raises:
      InputError: there are too few classes with `shots + queries` examples, or `shots`, `queries`
        or `episodes` is below 1.
    """
    if min(shots, queries, episodes) < 1:
        raise errors.InputError(
            f"shots={shots}, queries={queries} and episodes={episodes} must be at least 1 each."
        )
    labels = np.asarray(labels)
    pools = _episode_pools(labels, groups, ways, shots + queries)
    random = np.random.default_rng(seed)
    chosen = np.empty((episodes, ways, shots + queries), np.int64)
    for episode in range(episodes):
        pool = pools[random.integers(len(pools))]
        for way, c in enumerate(random.choice(len(pool), ways, replace=False)):
            chosen[episode, way] = random.choice(pool[c], shots + queries, replace=False)
    accuracy = np.asarray(_episode_accuracy(jnp.asarray(embeddings), jnp.asarray(chosen), shots))
    return {
        "accuracy": float(accuracy.mean()),
        "ci95": float(1.96 * accuracy.std(ddof=1) / math.sqrt(episodes)) if episodes > 1 else 0.0,
        "episodes": episodes,
        "ways": ways,
        "shots": shots,
        "queries": queries,
    }


def _episode_pools(labels, groups, ways, needed):
    """The classes that an episode may draw from: one pool, or one for every group."""
    members = {c: np.flatnonzero(labels == c) for c in np.unique(labels)}
    members = {c: m for c, m in members.items() if len(m) >= needed}
    if groups is None:
        pools = [list(members.values())]
    else:
        groups = np.asarray(groups)
        of_group: dict[int, list] = {}
        for m in members.values():
            of_group.setdefault(int(groups[m[0]]), []).append(m)
        pools = [of_group[g] for g in sorted(of_group)]
    pools = [pool for pool in pools if len(pool) >= ways]
    if not pools:
        where = "" if groups is None else " in any group"
        raise errors.InputError(
            f"ways={ways} with {needed} examples each: there are only {len(members)} classes with"
            f" as many examples{where}. Use fewer ways, shots or queries."
        )
    return pools


@functools.partial(jax.jit, static_argnames="shots")
def _episode_accuracy(
    embeddings: Float[Array, "examples dim"],
    chosen: Int[Array, "episodes ways per_way"],
    shots: int,
) -> Float[Array, "episodes"]:
    def of_episode(positions):
        examples = embeddings[positions]
        prototypes = examples[:, :shots].mean(axis=1)
        questions = examples[:, shots:].reshape(-1, examples.shape[-1])
        to_prototypes = distances.pairwise(questions, prototypes, "squared_euclidean")
        truth = jnp.repeat(jnp.arange(len(prototypes)), positions.shape[1] - shots)
        return jnp.mean(jnp.argmin(to_prototypes, axis=1) == truth)

    return jax.lax.map(of_episode, chosen)


def verification(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
    false_accept_rates: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> dict[str, float]:
    """Same or different? Pairs are accepted below a threshold on their Euclidean distance.

    Args:
      embeddings: the examples.
      labels: their classes.
      max_pairs: of same and of different pairs, each; where there are more, this many are
        drawn without replacement.
      seed: of the draw.
      false_accept_rates: the FAR, of different pairs, at which the TAR is stated.

    Returns:
      `roc_auc`; `eer`, where as many same pairs are rejected as different ones accepted;
      `tar_at_far_<rate>`, the share of same pairs accepted at the largest threshold that
      accepts at most this share of different ones; `same_pairs` and `different_pairs`,
      the number used. NaN where there are no pairs of one kind.
    """
    same, different = pair_distances(embeddings, labels, max_pairs=max_pairs, seed=seed)
    names = ["roc_auc", "eer", *(_tar_name(rate) for rate in false_accept_rates)]
    counts = {"same_pairs": len(same), "different_pairs": len(different)}
    if not len(same) or not len(different):
        return dict.fromkeys(names, math.nan) | counts
    curve = roc(same, different)
    area = np.trapezoid(curve.true_accepts, curve.false_accepts)
    result = {"roc_auc": float(area), "eer": _equal_error(curve)}
    for rate in false_accept_rates:
        result[_tar_name(rate)] = curve.at(rate).true_accepts
    return result | counts


class Accepted(NamedTuple):
    """What is accepted up to a threshold on the distance, the threshold included."""

    threshold: float
    false_accepts: float
    """FAR, the share of different pairs."""
    true_accepts: float
    """TAR, the share of same pairs."""


class Curve(NamedTuple):
    """`Accepted` at every threshold, rising; the first, below all distances, accepts nothing."""

    thresholds: Float[np.ndarray, "thresholds"]
    false_accepts: Float[np.ndarray, "thresholds"]
    true_accepts: Float[np.ndarray, "thresholds"]

    def at(self, false_accept_rate: float) -> Accepted:
        """The largest threshold that accepts at most this share of different pairs."""
        last = np.searchsorted(self.false_accepts, false_accept_rate, side="right") - 1
        return Accepted(*(float(x[last]) for x in self))


def roc(same: Float[np.ndarray, "same"], different: Float[np.ndarray, "different"]) -> Curve:
    """What every threshold on the distance accepts.

    Args:
      same: distances of pairs of one class, at least one.
      different: distances of pairs of two classes, at least one.
    """
    import sklearn.metrics

    distance = np.concatenate([same, different])
    is_same = np.arange(len(distance)) < len(same)
    false_accepts, true_accepts, score = sklearn.metrics.roc_curve(
        is_same, -distance, drop_intermediate=False
    )
    return Curve(-score, false_accepts, true_accepts)


def pair_distances(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "same"], Float[np.ndarray, "different"]]:
    """Euclidean distances of pairs of one class, and of pairs of two.

    Args:
      embeddings: the examples.
      labels: their classes.
      max_pairs: of each kind; where there are more, this many are drawn without replacement.
      seed: of the draw.
    """
    labels, x = np.asarray(labels), np.asarray(embeddings, np.float32)
    random = np.random.default_rng(seed)
    same = _same_pairs(labels, max_pairs, random)
    different = _different_pairs(labels, max_pairs, random)
    return _pair_distances(x, same), _pair_distances(x, different)


def _tar_name(rate):
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"tar_at_far_{mantissa}e{int(exponent)}"


def _equal_error(curve):
    """Where the two curves cross, between the two thresholds around the crossing."""
    false_accept, false_reject = curve.false_accepts, 1 - curve.true_accepts
    after = int(np.argmax(false_accept >= false_reject))
    before = max(after - 1, 0)
    gap = false_reject[before] - false_accept[before]
    closing = gap - (false_reject[after] - false_accept[after])
    part = gap / closing if closing > 0 else 0.0
    return float(false_accept[before] + part * (false_accept[after] - false_accept[before]))


def _by_class(labels):
    """The order that sorts by class; in it, where each class starts, and its size."""
    order = np.argsort(labels, kind="stable")
    _, start, count = np.unique(labels[order], return_index=True, return_counts=True)
    return order, start, count


def _same_pairs(labels, most, random):
    """Pairs of one class: numbered class after class, so that a draw needs no list of them."""
    order, start, count = _by_class(labels)
    ends = np.cumsum(count * (count - 1) // 2)
    number = _draw(ends[-1] if len(ends) else 0, most, random)
    c = np.searchsorted(ends, number, side="right")
    within = number - (ends[c] - count[c] * (count[c] - 1) // 2)
    # The pair (i, j), i < j, of a class has the number j (j - 1) / 2 + i.
    j = ((1 + np.sqrt(1 + 8 * within)) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > within
    i = within - j * (j - 1) // 2
    return np.stack([order[start[c] + i], order[start[c] + j]], axis=1)


def _different_pairs(labels, most, random):
    """Pairs of two classes, numbered likewise: each example with all of the classes before its."""
    order, start, count = _by_class(labels)
    before = np.repeat(start, count)
    ends = np.cumsum(before)
    number = _draw(ends[-1] if len(ends) else 0, most, random)
    j = np.searchsorted(ends, number, side="right")
    i = number - (ends[j] - before[j])
    return np.stack([order[i], order[j]], axis=1)


def _draw(population, most, random):
    if population <= most:
        return np.arange(population)
    return np.sort(random.choice(population, most, replace=False))


def _pair_distances(x, pairs):
    parts = [
        np.linalg.norm(x[some[:, 0]] - x[some[:, 1]], axis=1)
        for some in np.array_split(pairs, max(1, len(pairs) // 100_000))
    ]
    return np.concatenate(parts)


def clustering(
    embeddings: Float[np.ndarray, "examples dim"],
    labels: Int[np.ndarray, "examples"],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """How well k-means finds the classes, k being their number.

    Args:
      embeddings: the examples.
      labels: their classes.
      seed: of the initial centres.

    Returns:
      `nmi`, the mutual information of clusters and classes over the mean of their
      entropies; `ami`, the same adjusted for chance; `clusters`.
    """
    import sklearn.cluster

    clusters = len(np.unique(labels))
    x = np.asarray(embeddings, np.float64)
    # k-means++ in float64 with 3 trials a centre: in float32 scikit-learn converts all of x
    # for every centre, and with its default of 2 + log k trials it takes most of the time.
    centres, _ = sklearn.cluster.kmeans_plusplus(x, clusters, random_state=seed, n_local_trials=3)
    means = sklearn.cluster.KMeans(clusters, init=centres.astype(np.float32), n_init=1)
    found = means.fit_predict(x.astype(np.float32))
    return agreement(labels, found) | {"clusters": clusters}


def agreement(
    labels: Int[np.ndarray, "examples"], found: Int[np.ndarray, "examples"]
) -> dict[str, float]:
    """`nmi` and `ami`, as in `clustering`, of classes and clusters."""
    import sklearn.metrics

    return {
        "nmi": float(sklearn.metrics.normalized_mutual_info_score(labels, found)),
        "ami": float(sklearn.metrics.adjusted_mutual_info_score(labels, found)),
    }
