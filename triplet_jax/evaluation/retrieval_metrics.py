"""Precision, recall and MAP@R of nearest neighbours, where ties count against the query."""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from triplet_jax import arguments, distances, errors
from triplet_jax.devices import processes
from triplet_jax.evaluation import exact, neighbours


def retrieval(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    references: arguments.Embeddings | None = None,
    reference_labels: arguments.Labels | None = None,
    own: Any = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, int | float]:
    """Precision at 1, Recall at k, R-precision and MAP@R.

    A query's positives are the references that share its label; R is their number. rel(i) is 1
    where the i-th nearest reference is a positive, else 0:

        precision at 1   rel(1)
        recall at k      1 if any of rel(1) .. rel(k) is 1
        R-precision      sum_{i <= R} rel(i) / R
        MAP@R            sum_{i <= R} rel(i) precision(i) / R

    with precision(i) = sum_{j <= i} rel(j) / i. Each is averaged over queries. They are those of
    Musgrave, Belongie and Lim 2020, "A Metric Learning Reality Check",
    https://arxiv.org/abs/2003.08505.

    Ties count against the query: of equally near references those of other classes come first. A
    constant embedding scores 0, unless a query has too few negatives to fill its first places, and
    the result does not depend on the order of the rows. Two distances are equal where they differ
    by less than 1e-12 of themselves in float64; what the float32 product cannot decide is measured
    so.

    A query without positives has no score: it is left out and counted. A row with a NaN or infinite
    value has no distance: as a query it scores 0, as a reference it is never found, and it is
    counted. In a run of several processes all of them call this function with the same arrays, and
    each measures a share of the queries.

    Args:
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[queries]`, of whole numbers or strings.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour.
      reference_labels: their classes, `[references]`.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      metric: the name of a metric without parameters in `distances.METRICS`.
      ks: each k of Recall at k; one larger than the number of references counts as that number.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision` and `map_at_r`, NaN where no query counts;
      `queries`, the number that counted; `queries_without_positives`; and `queries_not_finite` and
      `references_not_finite`, the numbers of bad rows.

    Raises:
      InputError: the metric is not known, references come without labels, a k is below 1, or an
        array has another shape or type.

    Example:
      The outer rows find their own class first; the inner ones, at 1 and 1.5, find each other.

      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [1.0], [1.5], [4.0]], ["a", "a", "b", "b"]
      >>> found = evaluation.retrieval(x, labels, ks=(2,))
      >>> print(found["precision_at_1"], found["recall_at_2"], found["map_at_r"])
      0.5 0.75 0.5
    """
    found = _of_queries(embeddings, labels, references, reference_labels, own, metric, tuple(ks))
    counted = found.positives > 0
    counts = {
        "queries": int(counted.sum()),
        "queries_without_positives": int((~counted).sum()),
        "queries_not_finite": found.queries_not_finite,
        "references_not_finite": found.references_not_finite,
    }
    if not counted.any():
        return dict.fromkeys(found.scores, math.nan) | counts
    means = {
        name: float(score[counted].mean(dtype=np.float64)) for name, score in found.scores.items()
    }
    return means | counts


def retrieval_of_queries(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    references: arguments.Embeddings | None = None,
    reference_labels: arguments.Labels | None = None,
    own: Any = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
) -> dict[str, Float[np.ndarray, "queries"]]:
    """The scores of each query, of which `retrieval` takes the mean; NaN without positives.

    Arguments and errors are those of `retrieval`, and so is the source, Musgrave, Belongie and Lim
    2020, https://arxiv.org/abs/2003.08505.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision` and `map_at_r`, each of shape `[queries]`.

    Example:
      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [1.0], [1.5], [4.0]], ["a", "a", "b", "b"]
      >>> print(evaluation.retrieval_of_queries(x, labels)["precision_at_1"])
      [1. 0. 0. 1.]
    """
    found = _of_queries(embeddings, labels, references, reference_labels, own, metric, tuple(ks))
    return {name: np.where(found.positives > 0, x, np.nan) for name, x in found.scores.items()}


def retrieval_of_pairs(
    first: arguments.Embeddings,
    second: arguments.Embeddings,
    *,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 5, 8, 10),
) -> dict[str, dict[str, float]]:
    """Whether each row of one array finds its partner among all rows of the other, both ways.

    A query has one positive, so P@1, R-precision and MAP@R all are Recall at 1. Ties and rows that
    are not finite count as in `retrieval`. This is how Radford et al. 2021 (CLIP),
    https://arxiv.org/abs/2103.00020, score the retrieval of images and texts.

    Args:
      first: embeddings `[pairs, dim]`, of which row i belongs to row i of `second`.
      second: the partners, `[pairs, dim]`.
      metric: the name of a metric without parameters in `distances.METRICS`.
      ks: each k of Recall at k.

    Returns:
      `first_to_second` and `second_to_first`, each what `retrieval` returns, and `retrieval`, the
      mean of the two.

    Raises:
      InputError: the metric is not known, or the two arrays differ in shape.

    Example:
      >>> from triplet_jax import evaluation
      >>> found = evaluation.retrieval_of_pairs([[0.0], [1.0]], [[0.2], [0.3]], ks=(1,))
      >>> print(found["first_to_second"]["recall_at_1"], found["second_to_first"]["recall_at_1"])
      1.0 0.5
    """
    first = arguments.embeddings(first, name="first")
    second = arguments.embeddings(second, name="second")
    if first.shape != second.shape:
        raise errors.InputError(
            f"first has the shape {first.shape} and second {second.shape}: both must have one"
            " shape, since row i of one belongs to row i of the other."
        )
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


class _Found(NamedTuple):
    """The scores of all queries, and the counts that go with them."""

    scores: dict[str, Float[np.ndarray, "queries"]]
    positives: Int[np.ndarray, "queries"]
    queries_not_finite: int
    references_not_finite: int


class _Asked(NamedTuple):
    """Queries, or a share of them, and the references that they search."""

    queries: Float[np.ndarray, "queries dim"]
    codes: Int[np.ndarray, "queries"]
    own: Int[np.ndarray, "queries"]
    positives: Int[np.ndarray, "queries"]
    references: Float[np.ndarray, "references dim"]
    reference_codes: Int[np.ndarray, "references"]


def _of_queries(embeddings, labels, references, reference_labels, own, metric, ks):
    """The scores of every query, and how many positives it has."""
    errors.check_known("metric", metric, distances.METRICS)
    if min(ks, default=1) < 1:
        raise errors.InputError(f"ks={ks} must be at least 1 each.")
    if (references is None) != (reference_labels is None):
        raise errors.InputError(
            "references and reference_labels belong together: give both of them or neither."
        )
    asked = _asked(embeddings, labels, references, reference_labels, own)
    bad = ~np.isfinite(asked.queries).all(axis=1)
    bad_references = ~np.isfinite(asked.references).all(axis=1)
    names = ["precision_at_1", *(f"recall_at_{k}" for k in ks), "r_precision", "map_at_r"]
    if not (asked.positives > 0).any():
        scores = dict.fromkeys(names, np.zeros(len(asked.queries)))
    else:
        scores = _scores(asked, metric, ks)
        scores = {name: np.where(bad, 0.0, scores[name]) for name in names}
    return _Found(scores, asked.positives, int(bad.sum()), int(bad_references.sum()))


def _asked(embeddings, labels, references, reference_labels, own):
    queries = arguments.embeddings(embeddings)
    labels = np.asarray(arguments.labels(labels, queries.shape))
    if references is None:
        among, among_labels = queries, labels
    else:
        among = arguments.embeddings(references, name="references")
        neighbours.check_width(queries, among)
        among_labels = np.asarray(
            arguments.labels(
                reference_labels, among.shape, name="reference_labels", rows="references"
            )
        )
    own = neighbours.own_positions(own, queries, references)
    codes, reference_codes = arguments.common_codes(labels, among_labels)
    positives = np.bincount(reference_codes, minlength=codes.max(initial=0) + 1)[codes]
    positives = positives - ((own >= 0) & (reference_codes[own] == codes))
    return _Asked(queries, codes, own, positives, among, reference_codes)


def _scores(asked, metric, ks):
    # Each process of a run finds the neighbours of its share of the queries.
    shares = [processes.own_share(x) for x in asked[:4]]
    here = asked._replace(**dict(zip(_Asked._fields, (share for share, _ in shares), strict=False)))
    available = len(asked.references) - int((asked.own >= 0).any())
    found = _retrieval(
        *(jnp.asarray(x, jnp.int32 if x.dtype.kind == "i" else jnp.float32) for x in here),
        deepest=int(min(max(asked.positives.max(), 1, *ks), available)),
        available=available,
        metric=metric,
        ks=ks,
    )
    scores = jax.tree.map(np.array, found)
    unsure = scores.pop("unsure") & np.isfinite(here.queries).all(axis=1) & (here.positives > 0)
    for rows in neighbours.in_parts(np.flatnonzero(unsure)):
        for name, values in _exactly(here, rows, metric, ks).items():
            scores[name][rows] = values
    return processes.all_shares(scores, len(asked.queries))


@functools.partial(jax.jit, static_argnames=("deepest", "available", "metric", "ks"))
def _retrieval(
    queries, codes, own, positives, references, reference_codes, *, deepest, available, metric, ks
):
    """The scores of every query; those of one without positives mean nothing.

    `unsure` says of which queries the float32 product cannot tell the order.
    """
    ranking = neighbours.make_ranking(references, metric)
    finite = jnp.all(jnp.isfinite(references), axis=1)
    # One more than counts, to see whether it is as near as the last.
    shown = min(deepest + 1, available)

    def of_tile(rows, some):
        mine, code, r = (x.at[rows].get(mode="clip") for x in (own, codes, positives))
        value, position = ranking.first(some, mine, shown)
        relevant = (reference_codes[position] == code[:, None]) & finite[position]
        depth = jnp.minimum(jnp.maximum(r, max(ks, default=1)), deepest)
        unsure = _unsure(value, relevant, depth, 2 * ranking.doubt(some, value[:, -1]))
        hides = (shown == depth) & (len(references) - (mine >= 0) > shown)
        unsure |= hides & relevant[:, -1]
        return _measures(relevant[:, :deepest], jnp.maximum(r, 1), ks) | {"unsure": unsure}

    return neighbours.by_tiles(of_tile, queries)


def _unsure(value, relevant, depth, doubt):
    """Whether a positive and a negative, whose order matters, are too near each other to order."""
    last = jnp.arange(1, value.shape[1]) <= depth[:, None]
    near = ~(value[:, :-1] - value[:, 1:] > doubt[:, None])
    differ = relevant[:, :-1] != relevant[:, 1:]
    # Beyond the last that counts there may be a negative as near, which was not looked at.
    ends = (jnp.arange(1, value.shape[1]) == depth[:, None]) & relevant[:, :-1]
    return jnp.any(last & near & (differ | ends), axis=1)


def _measures(relevant, r, ks):
    """The scores of each row of neighbours, nearest first, from which of them are positives."""
    places = relevant.shape[1]
    rank = jnp.arange(1, places + 1)
    hits = jnp.cumsum(relevant, axis=1)
    within = relevant & (rank <= r[:, None])
    recall = {f"recall_at_{k}": hits[:, min(k, places) - 1] > 0 for k in ks}
    return {name: 1.0 * found for name, found in recall.items()} | {
        "precision_at_1": 1.0 * relevant[:, 0],
        "r_precision": within.sum(axis=1) / r,
        "map_at_r": jnp.where(within, hits / rank, 0.0).sum(axis=1) / r,
    }


def _exactly(asked, rows, metric, ks):
    """The scores of some queries, by distances in float64."""
    order, apart = exact.ordering(asked.queries[rows], asked.references, metric)
    there = np.isfinite(asked.references).all(axis=1)
    found = [
        _of_ranks(
            _ranks(
                order[i],
                apart[i],
                (asked.reference_codes == asked.codes[row]) & there,
                there & (np.arange(len(there)) != asked.own[row]),
                max(asked.positives[row], *ks, 1),
            ),
            asked.positives[row],
            ks,
        )
        for i, row in enumerate(rows)
    ]
    return {name: np.array([f[name] for f in found]) for name in found[0]}


def _ranks(order, apart, is_positive, shown, depth):
    """The ranks of the positives, each behind the negatives that are as near.

    A rank above `depth` may be any number above it.
    """
    positive = np.flatnonzero(is_positive & shown)
    positive = positive[np.argsort(order[positive], kind="stable")]
    negative = order[shown & ~is_positive]
    if len(negative) > depth:
        negative = np.partition(negative, depth)[: depth + 1]
    negative = np.sort(negative)
    ahead = np.searchsorted(negative, order[positive] + apart[positive], side="right")
    return np.sort(ahead) + np.arange(1, len(positive) + 1)


def _of_ranks(ranks, r, ks):
    first = ranks[0] if len(ranks) else np.inf
    within = ranks[ranks <= r]
    return {f"recall_at_{k}": float(first <= k) for k in ks} | {
        "precision_at_1": float(first == 1),
        "r_precision": len(within) / r,
        "map_at_r": float(np.sum(np.arange(1, len(within) + 1) / within) / r),
    }
