"""Retrieval scores of nearest neighbours, where ties count against the query."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Shaped

from triplet_jax import arguments, errors
from triplet_jax.evaluation import exact, neighbours, query_sets, retrieval_scores
from triplet_jax.evaluation.computed_distances import Distances


def retrieval(
    embeddings: arguments.Embeddings | Distances,
    labels: arguments.Labels,
    *,
    references: arguments.Embeddings | None = None,
    reference_labels: arguments.Labels | None = None,
    own: Any = None,
    ignore: tuple[arguments.Labels, arguments.Labels] | None = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
    whole_ranking: bool = False,
    average: str = "queries",
) -> dict[str, int | float]:
    """Scores how well queries find the references of their class.

    A query's positives are the references that share its label; R is their number. rel(i) is 1
    where the i-th nearest reference is a positive, else 0, and precision(i) is
    sum_{j <= i} rel(j) / i:

        precision at 1   rel(1)
        recall at k      1 if any of rel(1) .. rel(k) is 1; also called CMC at k, or rank-k
        R-precision      sum_{i <= R} rel(i) / R
        MAP@R            sum_{i <= R} rel(i) precision(i) / R

    and with `whole_ranking`

        mAP              sum_i rel(i) precision(i) / R
        mAP@k            sum_{i <= k} rel(i) precision(i) / min(R, k)
        nDCG@k           sum_{i <= k} rel(i) / log2(i + 1), over its largest possible value
        MRR              1 / the rank of the first positive
        mINP             R / the rank of the last positive

    The first four are those of Musgrave, Belongie and Lim 2020, "A Metric Learning Reality Check",
    https://arxiv.org/abs/2003.08505; mINP is that of Ye et al. 2021,
    https://arxiv.org/abs/2001.04193.

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
      embeddings: the queries, `[queries, dim]` of any number type, taken as float32. Or the
        `Distances` that `k_reciprocal` and `nearest_of_items` make, which know the references,
        `own` and the metric.
      labels: their classes, a list or an array of shape `[queries]`, of whole numbers or strings.
      references: rows `[references, dim]` to search; None searches the queries, of which none is
        its own neighbour.
      reference_labels: their classes, `[references]`.
      own: for each query the position of the reference that is the query itself and is left out; -1
        where none is. None where no query is a reference.
      ignore: `(query_groups, reference_groups)`, of shapes `[queries]` and `[references]`. A query
        does not search the references that share both its label and its group, as person
        re-identification leaves out other images of the same person by the same camera (Zheng et
        al. 2015, https://doi.org/10.1109/ICCV.2015.133). Without references both are groups of the
        queries. None leaves out nothing.
      metric: the name of a metric without parameters in `distances.METRICS`.
      ks: each k of Recall, mAP and nDCG at k; one larger than the number of references counts as
        that number.
      whole_ranking: also computes the scores of the second list. They look at the rank of every
        positive among all references, in float64 on the CPU, which takes some times as long.
      average: "queries" takes the mean over queries; "classes" takes the mean of each class first,
        so that small classes count as much as large ones.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision`, `map_at_r`, and with the whole ranking
      `map_at_<k>`, `ndcg_at_<k>`, `map`, `mrr` and `minp`; NaN where no query counts. And counts:
      `queries`, the number that counted; `queries_without_positives`; `queries_not_finite` and
      `references_not_finite`, the numbers of bad rows; `references_ignored`, the pairs of a query
      and a reference that `ignore` left out; and `queries_among_references`, of how many queries an
      equal row with the same label is among the references that they search. There it is usually
      the query itself, which any embedding finds first: name it by `own`, or leave it out by
      `ignore`.

    Raises:
      InputError: the metric or the average is not known, references come without labels, a k is
        below 1, an array has another shape or type, or `Distances` come with what they know.

    Example:
      The outer rows find their own class first; the inner ones, at 1 and 1.5, find each other.

      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [1.0], [1.5], [4.0]], ["a", "a", "b", "b"]
      >>> found = evaluation.retrieval(x, labels, ks=(2,))
      >>> print(found["precision_at_1"], found["recall_at_2"], found["map_at_r"])
      0.5 0.75 0.5

      One person before two cameras: the image of the same camera is nearer and does not count.

      >>> found = evaluation.retrieval(
      ...     [[0.0]], ["ann"], references=[[0.1], [2.0], [1.0]],
      ...     reference_labels=["ann", "ann", "bob"], ignore=(["hall"], ["hall", "door", "door"])
      ... )
      >>> print(found["precision_at_1"], found["recall_at_2"], found["references_ignored"])
      0.0 1.0 1
    """
    errors.check_known("average", average, ("queries", "classes"))
    asked = _asked(embeddings, labels, references, reference_labels, own, ignore)
    scores = _scores(asked, _ranked_by(embeddings, metric), ks, whole_ranking)
    counted = asked.positives > 0
    counts = {
        "queries": int(counted.sum()),
        "queries_without_positives": int((~counted).sum()),
        "queries_not_finite": int((~np.isfinite(asked.queries).all(axis=1)).sum()),
        "references_not_finite": int((~np.isfinite(asked.references).all(axis=1)).sum()),
        "references_ignored": int(asked.ignored.sum()),
        "queries_among_references": 0 if reference_labels is None else asked.found_themselves(),
    }
    if not counted.any():
        return dict.fromkeys(scores, math.nan) | counts
    return (
        mean_of_queries(
            {name: score[counted] for name, score in scores.items()}, asked.codes[counted], average
        )
        | counts
    )


def retrieval_of_queries(
    embeddings: arguments.Embeddings | Distances,
    labels: arguments.Labels,
    *,
    references: arguments.Embeddings | None = None,
    reference_labels: arguments.Labels | None = None,
    own: Any = None,
    ignore: tuple[arguments.Labels, arguments.Labels] | None = None,
    metric: str = "euclidean",
    ks: Sequence[int] = (1, 2, 4, 8),
    whole_ranking: bool = False,
) -> dict[str, Float[np.ndarray, "queries"]]:
    """The scores of each query, of which `retrieval` takes the mean; NaN without positives.

    Arguments and errors are those of `retrieval`, and so is the source, Musgrave, Belongie and Lim
    2020, https://arxiv.org/abs/2003.08505.

    Returns:
      `precision_at_1`, `recall_at_<k>`, `r_precision` and `map_at_r`, and with the whole ranking
      `map_at_<k>`, `ndcg_at_<k>`, `map`, `mrr` and `minp`, each of shape `[queries]`.

    Example:
      >>> from triplet_jax import evaluation
      >>> x, labels = [[0.0], [1.0], [1.5], [4.0]], ["a", "a", "b", "b"]
      >>> print(evaluation.retrieval_of_queries(x, labels)["precision_at_1"])
      [1. 0. 0. 1.]
    """
    asked = _asked(embeddings, labels, references, reference_labels, own, ignore)
    scores = _scores(asked, _ranked_by(embeddings, metric), ks, whole_ranking)
    return {name: np.where(asked.positives > 0, x, np.nan) for name, x in scores.items()}


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


def _ranked_by(embeddings, metric):
    """What decides which reference is nearer."""
    if not isinstance(embeddings, Distances):
        return metric
    if metric != "euclidean":
        raise errors.InputError(
            f"metric={metric!r} is given with Distances, which have theirs: give it to the function"
            " that makes them."
        )
    return embeddings


def _asked(embeddings, labels, references, reference_labels, own, ignore):
    if isinstance(embeddings, Distances):
        return _asked_by_distance(embeddings, labels, references, reference_labels, own, ignore)
    if (references is None) != (reference_labels is None):
        raise errors.InputError(
            "references and reference_labels belong together: give both of them or neither."
        )
    queries, among, own = neighbours.searched(embeddings, references, own)
    labels = among_labels = np.asarray(arguments.labels(labels, queries.shape))
    if references is not None:
        among_labels = np.asarray(
            arguments.labels(
                reference_labels, among.shape, name="reference_labels", rows="references"
            )
        )
    codes, reference_codes = arguments.common_codes(labels, among_labels)
    return query_sets.ask(
        queries, codes, own, among, reference_codes, _groups(ignore, queries, among)
    )


def _asked_by_distance(found, labels, references, reference_labels, own, ignore):
    if references is not None or own is not None:
        raise errors.InputError(
            "references or own are given with Distances, which have theirs: give them to the"
            " function that makes the distances."
        )
    labels = np.asarray(arguments.labels(labels, found.queries.shape))
    if reference_labels is not None:
        others = np.asarray(
            arguments.labels(
                reference_labels, found.references.shape, name="reference_labels", rows="references"
            )
        )
    elif found.references is found.queries:
        others = labels
    else:
        raise errors.InputError(
            "reference_labels is missing: these distances lead to references, not to the queries."
        )
    codes, reference_codes = arguments.common_codes(labels, others)
    return query_sets.ask(
        found.queries,
        codes,
        found.own,
        found.references,
        reference_codes,
        _groups(ignore, found.queries, found.references),
    )


def _groups(ignore, queries, references):
    """The groups as numbers, or None."""
    if ignore is None:
        return None
    if not isinstance(ignore, tuple) or len(ignore) != 2:
        raise errors.InputError(
            f"ignore is a {type(ignore).__name__}: give a tuple of two arrays,"
            " (query_groups, reference_groups)."
        )
    names = ("ignore: query_groups", "ignore: reference_groups")
    of_queries, of_references = (
        np.asarray(arguments.labels(groups, among.shape, name=name, rows=rows))
        for groups, among, name, rows in zip(
            ignore, (queries, references), names, ("queries", "references"), strict=True
        )
    )
    return arguments.common_codes(of_queries, of_references, names)


def _scores(asked, ranked_by, ks, whole_ranking):
    """The scores of every query; those of one without positives mean nothing."""
    if not isinstance(ranked_by, Distances):
        exact.check_metric(ranked_by)
    if min(ks, default=1) < 1:
        raise errors.InputError(f"ks={tuple(ks)} must be at least 1 each.")
    wanted = retrieval_scores.Wanted(ranked_by, tuple(ks), whole_ranking)
    if not (asked.positives > 0).any():
        return dict.fromkeys(wanted.names, np.zeros(len(asked.queries)))
    return retrieval_scores.of_queries(asked, wanted)


def mean_of_queries(
    scores: dict[str, Float[np.ndarray, "queries"]],
    labels: Shaped[np.ndarray, "queries"],
    average: str,
) -> dict[str, float]:
    """The means of scores of queries, all of which have one.

    Args:
      scores: a number for each query, by the name of the score.
      labels: the classes of the queries.
      average: as in `retrieval`.
    """
    weights = None
    if average == "classes":
        _, of_class, size = np.unique(labels, return_inverse=True, return_counts=True)
        weights = 1 / size[of_class]
    return {
        name: float(np.average(score.astype(np.float64), weights=weights))
        for name, score in scores.items()
    }
