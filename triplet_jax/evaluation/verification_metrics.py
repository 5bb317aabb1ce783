"""Verification: are two examples of one class?"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from triplet_jax import arguments

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
      InputError: an array has another shape or type.

    Example:
      The distances of same pairs are 1 and 1, those of different pairs 2, 3, 3 and 4.

      >>> from triplet_jax import evaluation
      >>> found = evaluation.verification([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
      >>> print(found["roc_auc"], found["eer"], found["tar_at_far_1e-3"])
      1.0 0.0 1.0
    """
    embeddings = arguments.embeddings(embeddings)
    same, different = pair_distances(embeddings, labels, max_pairs=max_pairs, seed=seed)
    names = ["roc_auc", "eer", *(_tar_name(rate) for rate in false_accept_rates)]
    counts = {
        "same_pairs": len(same),
        "different_pairs": len(different),
        "examples_not_finite": int((~np.isfinite(embeddings).all(axis=1)).sum()),
    }
    if not len(same) or not len(different):
        return dict.fromkeys(names, math.nan) | counts
    curve = roc(same, different)
    area = np.trapezoid(curve.true_accepts, curve.false_accepts)
    result = {"roc_auc": float(area), "eer": _equal_error(curve)}
    for rate in false_accept_rates:
        result[_tar_name(rate)] = curve.at(rate).true_accepts
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
        """The largest threshold that accepts at most this share of different pairs."""
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


def _tar_name(rate):
    mantissa, exponent = f"{rate:.0e}".split("e")
    return f"tar_at_far_{mantissa}e{int(exponent)}"


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
