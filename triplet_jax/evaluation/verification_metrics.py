"""Verification: are two examples of one class?"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from triplet_jax import arguments, errors

_MOST_VALUES = 2**22
"""The most values of pairs that are held at a time; raw pixels have thousands a row."""


def verification(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
    false_accept_rates: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> dict[str, int | float]:
    """How well a threshold on the Euclidean distance tells pairs of one class from pairs of two.

    A pair is accepted where its distance is at most the threshold. TAR is the share of same pairs
    that are accepted and FAR the share of different ones. Rows with NaN or infinite values are left
    out and counted. FaceNet (Schroff, Kalenichenko and Philbin 2015, section 4,
    https://arxiv.org/abs/1503.03832) states the TAR at a FAR of 1e-3; on ROC curves see Fawcett
    2006, https://doi.org/10.1016/j.patrec.2005.10.010.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[examples]`, of whole numbers or strings.
      max_pairs: the most pairs of each kind, same and different; where there are more, this many
        are drawn without replacement.
      seed: of the draw.
      false_accept_rates: each FAR at which the TAR is stated.

    Returns:
      `roc_auc`, the area under the curve of TAR over FAR; `eer`, the FAR at the threshold where it
      equals 1 - TAR; `tar_at_far_<rate>`, the TAR at the largest threshold whose FAR is at most the
      rate; `same_pairs` and `different_pairs`, the numbers used; `examples_not_finite`. The scores
      are NaN where there are no pairs of one kind.

    Raises:
      InputError: an array has another shape or type, or a rate is not in [0, 1].

    Example:
      The distances of same pairs are 1 and 1, those of different pairs 2, 3, 3 and 4.

      >>> from triplet_jax import evaluation
      >>> found = evaluation.verification([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
      >>> print(found["roc_auc"], found["eer"], found["tar_at_far_1e-3"])
      1.0 0.0 1.0
    """
    embeddings = arguments.embeddings(embeddings)
    same, different = pair_distances(embeddings, labels, max_pairs=max_pairs, seed=seed)
    not_finite = int((~np.isfinite(embeddings).all(axis=1)).sum())
    return _scores(same, different, false_accept_rates) | {"examples_not_finite": not_finite}


def verification_of_pairs(
    embeddings: arguments.Embeddings,
    pairs: Any,
    is_same: Any,
    *,
    folds: Any = None,
    false_accept_rates: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
) -> dict[str, int | float]:
    """How well a threshold tells same from different in the pairs that a benchmark gives.

    With folds, as in Labeled Faces in the Wild (Huang et al. 2007,
    https://people.cs.umass.edu/~elm/papers/lfw.pdf), each fold is judged by the threshold that is
    right most often in all others:

        accuracy         m = mean over folds of the share of pairs that are told right
        standard error   sqrt(sum_i (accuracy_i - m)^2 / (F - 1)) / sqrt(F)   for F folds

    A threshold lies midway between two distances of these pairs; of those that are right equally
    often the smallest is taken. The other scores are those of `verification`, over all pairs. TAR
    and FAR are counted exactly: a FAR of 1e-6 means something from 10^6 different pairs on.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      pairs: the positions of both examples of each pair, whole numbers `[pairs, 2]`.
      is_same: whether each pair is of one class, booleans `[pairs]`.
      folds: the fold of each pair, `[pairs]`, at least two of them; None for none.
      false_accept_rates: each FAR at which the TAR is stated.

    Returns:
      What `verification` returns, and with folds `accuracy`, `accuracy_error` and `folds`.
      `pairs_not_finite` counts pairs of an example with a NaN or infinite value, which are told
      wrongly at every threshold.

    Raises:
      InputError: an array has another shape or type, a position is not there, a rate is not in
        [0, 1], or there is one fold.

    Example:
      >>> from triplet_jax import evaluation
      >>> x = [[0.0], [1.0], [5.0], [5.5]]
      >>> pairs, is_same = [[0, 1], [0, 2], [2, 3], [1, 3]], [True, False, True, False]
      >>> found = evaluation.verification_of_pairs(x, pairs, is_same, folds=[0, 0, 1, 1])
      >>> print(found["accuracy"], found["accuracy_error"])
      1.0 0.0
    """
    x = arguments.embeddings(embeddings)
    pairs, is_same = _pairs(pairs, is_same, len(x))
    good = np.isfinite(x).all(axis=1)[pairs].all(axis=1)
    measured = _pair_distances(x.astype(np.float64), pairs[good])
    # What has no distance is told wrongly: a same pair is too far, a different one too near.
    distance = np.where(is_same, 1 + measured.max(initial=0), -1.0)
    distance[good] = measured
    result = _scores(distance[is_same], distance[~is_same], false_accept_rates)
    result["pairs_not_finite"] = int((~good).sum())
    if folds is None:
        return result
    return result | _over_folds(
        distance, is_same, good, arguments.codes(folds, pairs.shape, name="folds", rows="pairs")
    )


def _pairs(pairs, is_same, examples):
    found = np.asarray(pairs)
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
        raise errors.InputError(
            f"pairs have the shape {found.shape} and dtype {found.dtype}: they must be whole"
            " numbers [pairs, 2], the positions of both examples."
        )
    if len(found) and not 0 <= found.min() <= found.max() < examples:
        raise errors.InputError(
            f"pairs name the positions {found.min()} to {found.max()}, and there are {examples}"
            f" examples, from 0 to {examples - 1}."
        )
    same = np.asarray(arguments.labels(is_same, found.shape, name="is_same", rows="pairs"))
    if same.dtype != bool:
        raise errors.InputError(f"is_same has dtype {same.dtype}; it must hold booleans.")
    return found, same


def _over_folds(distance, is_same, good, folds):
    """The accuracy of each fold at the threshold that suits the good pairs of the others."""
    names, of_pair = folds
    if len(names) < 2:
        raise errors.InputError(f"folds has {len(names)} fold: at least two are needed.")
    right = []
    for fold in range(len(names)):
        here, others = of_pair == fold, (of_pair != fold) & good
        threshold = _best_threshold(distance[others], is_same[others])
        right.append(np.mean(good[here] & ((distance[here] <= threshold) == is_same[here])))
    error = np.std(right, ddof=1) / math.sqrt(len(right))
    return {
        "accuracy": float(np.mean(right)),
        "accuracy_error": float(error),
        "folds": len(names),
    }


def _best_threshold(distance, is_same):
    """The threshold up to which accepting pairs is right most often; below all for no pairs."""
    if not len(distance):
        return -np.inf
    order = np.argsort(distance, kind="stable")
    # Equal distances are accepted together.
    last = np.append(np.diff(distance[order]) > 0, True)
    gain = np.cumsum(np.where(is_same[order], 1, -1))[last]
    best = int(np.argmax(gain))
    return distance[order][last][best : best + 2].mean() if gain[best] > 0 else -np.inf


def _scores(same, different, false_accept_rates):
    """The scores of the distances of same and of different pairs."""
    names = ["roc_auc", "eer", *(rate_name("tar_at_far", rate) for rate in false_accept_rates)]
    counts = {"same_pairs": len(same), "different_pairs": len(different)}
    for rate in false_accept_rates:
        check_rate(rate)
    if not len(same) or not len(different):
        return dict.fromkeys(names, math.nan) | counts
    curve = roc(same, different)
    area = np.trapezoid(curve.true_accepts, curve.false_accepts)
    result = {"roc_auc": float(area), "eer": _equal_error(curve)}
    for rate in false_accept_rates:
        result[rate_name("tar_at_far", rate)] = curve.at(rate).true_accepts
    return result | counts


class Accepted(NamedTuple):
    """What is accepted up to a threshold on the distance, the threshold included.

    The terms are those of Fawcett 2006, https://doi.org/10.1016/j.patrec.2005.10.010.

    Example:
      >>> import numpy as np
      >>> from triplet_jax import evaluation
      >>> curve = evaluation.roc(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
      >>> curve.at(0.5)
      Accepted(threshold=3.0, false_accepts=0.5, true_accepts=1.0)
    """

    threshold: float
    false_accepts: float
    """FAR, the share of different pairs."""
    true_accepts: float
    """TAR, the share of same pairs."""


class Curve(NamedTuple):
    """`Accepted` at every threshold, rising; the first, below all distances, accepts nothing.

    The terms are those of Fawcett 2006, https://doi.org/10.1016/j.patrec.2005.10.010.

    Example:
      >>> import numpy as np
      >>> from triplet_jax import evaluation
      >>> curve = evaluation.roc(np.array([1.0, 3.0]), np.array([2.0, 4.0]))
      >>> isinstance(curve, evaluation.Curve), curve.thresholds.tolist()
      (True, [-inf, 1.0, 2.0, 3.0, 4.0])
    """

    thresholds: Float[np.ndarray, "thresholds"]
    false_accepts: Float[np.ndarray, "thresholds"]
    true_accepts: Float[np.ndarray, "thresholds"]

    def at(self, false_accept_rate: float) -> Accepted:
        """The largest threshold that accepts at most this share of different pairs.

        Raises:
          InputError: the share is not in [0, 1].
        """
        check_rate(false_accept_rate)
        last = np.searchsorted(self.false_accepts, false_accept_rate, side="right") - 1
        return Accepted(*(float(x[last]) for x in self))


def roc(same: Float[np.ndarray, "same"], different: Float[np.ndarray, "different"]) -> Curve:
    """What every threshold on the distance accepts, as in Fawcett 2006.

    An introduction to ROC analysis: https://doi.org/10.1016/j.patrec.2005.10.010.

    Args:
      same: distances `[same]` of pairs of one class, at least one.
      different: distances `[different]` of pairs of two classes, at least one.

    Example:
      >>> import numpy as np
      >>> from triplet_jax import evaluation
      >>> curve = evaluation.roc(same=np.array([1.0, 3.0]), different=np.array([2.0, 4.0]))
      >>> print(curve.true_accepts, curve.false_accepts)
      [0.  0.5 0.5 1.  1. ] [0.  0.  0.5 0.5 1. ]
    """
    import sklearn.metrics

    distance = np.concatenate([same, different])
    is_same = np.arange(len(distance)) < len(same)
    false_accepts, true_accepts, score = sklearn.metrics.roc_curve(
        is_same, -distance, drop_intermediate=False
    )
    return Curve(-score, false_accepts, true_accepts)


def pair_distances(
    embeddings: arguments.Embeddings,
    labels: arguments.Labels,
    *,
    max_pairs: int = 1_000_000,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "same"], Float[np.ndarray, "different"]]:
    """Euclidean distances of pairs of one class, and of pairs of two.

    Rows with NaN or infinite values are in no pair.

    Args:
      embeddings: the examples, `[examples, dim]` of any number type, taken as float32.
      labels: their classes, a list or an array of shape `[examples]`, of whole numbers or strings.
      max_pairs: the most pairs of each kind; where there are more, this many are drawn without
        replacement.
      seed: of the draw.

    Returns:
      The distances `[same]` and `[different]`; empty where there is no such pair.

    Raises:
      InputError: an array has another shape or type.

    Example:
      >>> from triplet_jax import evaluation
      >>> same, different = evaluation.pair_distances([[0.0], [1.0], [3.0]], ["a", "a", "b"])
      >>> print(same.tolist(), different.tolist())
      [1.0] [3.0, 2.0]
    """
    x = arguments.embeddings(embeddings)
    _, labels = arguments.codes(labels, x.shape)
    finite = np.isfinite(x).all(axis=1)
    x, labels = x[finite], labels[finite]
    if x.size and np.abs(x).max() > 1e18:  # its square overflows float32
        x = x.astype(np.float64)
    random = np.random.default_rng(seed)
    same = _same_pairs(labels, max_pairs, random)
    different = _different_pairs(labels, max_pairs, random)
    return _pair_distances(x, same), _pair_distances(x, different)


def check_rate(rate: float) -> None:
    """Refuses a false accept rate that is no share.

    Raises:
      InputError: the rate is not in [0, 1].
    """
    if not 0 <= rate <= 1:
        raise errors.InputError(f"false_accept_rate={rate} must be in [0, 1].")


def rate_name(score: str, rate: float) -> str:
    """The name of a score at a rate.

    >>> rate_name("tar_at_far", 0.001), rate_name("tar_at_far", 0.25)
    ('tar_at_far_1e-3', 'tar_at_far_2.5e-1')
    """
    written = np.format_float_scientific(rate, trim="-", exp_digits=1)
    return f"{score}_{written.replace('e+', 'e')}"


def _equal_error(curve):
    """The error where FAR and 1 - TAR cross, interpolated between two thresholds."""
    false_accept, false_reject = curve.false_accepts, 1 - curve.true_accepts
    after = int(np.argmax(false_accept >= false_reject))
    before = max(after - 1, 0)
    gap = false_reject[before] - false_accept[before]
    closing = gap - (false_reject[after] - false_accept[after])
    part = gap / closing if closing > 0 else 0.0
    return float(false_accept[before] + part * (false_accept[after] - false_accept[before]))


def _by_class(labels):
    """The order that sorts by class, and where in it each class starts and how large it is."""
    order = np.argsort(labels, kind="stable")
    _, start, count = np.unique(labels[order], return_index=True, return_counts=True)
    return order, start, count


def _same_pairs(labels, most, random):
    """Pairs of one class, numbered class after class, so that a draw needs no list of all pairs."""
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
    """Pairs of two classes, numbered too: each example with all classes before its own."""
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
    at_once = max(1, _MOST_VALUES // max(1, x.shape[1]))
    parts = [
        np.linalg.norm(x[some[:, 0]] - x[some[:, 1]], axis=1)
        for some in np.array_split(pairs, -(-len(pairs) // at_once) or 1)
    ]
    return np.concatenate(parts)
