"""Open-set identification: which class is it, or is it of none of them?"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from triplet_jax import errors
from triplet_jax.evaluation import verification_metrics


class Identified(NamedTuple):
    """What a threshold on the distance to the nearest class does; the threshold is included.

    The terms are those of Phillips, Grother and Micheals 2011,
    https://doi.org/10.1007/978-0-85729-932-1_21.

    Example:
      >>> from triplet_jax import evaluation
      >>> evaluation.open_set_threshold([1.0, 3.0], [True, True], [2.0, 4.0], false_accept_rate=0.5)
      Identified(threshold=3.0, false_accepts=0.5, identified=1.0)
    """

    threshold: float
    false_accepts: float
    """FAR, the share of unknown probes within the threshold."""
    identified: float
    """DIR, the share of known probes within it whose nearest class is theirs."""


def open_set(
    known: Any,
    is_right: Any,
    unknown: Any,
    *,
    false_accept_rates: Sequence[float] = (1e-1, 1e-2, 1e-3),
    threshold: float | None = None,
) -> dict[str, int | float]:
    """How well probes are identified among classes to which some of them do not belong.

    A probe is of the nearest class where that is within a threshold t, and of none otherwise. With
    d(p) the distance from a probe to its nearest class, K the known probes, which have a class in
    the gallery, and U the others,

        FAR(t) = |{p in U: d(p) <= t}| / |U|
        DIR(t) = |{p in K: d(p) <= t, the nearest class is that of p}| / |K|

    DIR is the detection and identification rate, at rank 1, and FAR the false accept rate, of
    Phillips, Grother and Micheals 2011, Evaluation Methods in Face Recognition, in the Handbook of
    Face Recognition, https://doi.org/10.1007/978-0-85729-932-1_21. On recognition among unknown
    classes see Scheirer et al. 2013, https://doi.org/10.1109/TPAMI.2012.256.

    Args:
      known: the distance of each known probe to its nearest class, `[known]`. One that is NaN or
        infinite is never accepted.
      is_right: whether this class is that of the probe, booleans `[known]`.
      unknown: the distance of each unknown probe to its nearest class, `[unknown]`.
      false_accept_rates: each FAR at which the DIR is stated.
      threshold: where given, what this threshold does is stated, too.

    Returns:
      `accuracy`, the share of known probes whose nearest class is theirs, at any distance;
      `dir_at_far_<rate>`, the DIR at the largest threshold whose FAR is at most the rate;
      `roc_auc`, the probability that a known probe is nearer than an unknown one, where ties count
      half; `known`, `unknown` and `probes_not_finite`, counts. With a threshold also
      `false_accepts` and `identified`, the FAR and the DIR, and of the known probes the shares
      `misnamed` (accepted as another class) and `rejected`. NaN where there are no such probes.

    Raises:
      InputError: an array has another shape or type, or a rate is not in [0, 1].

    Example:
      Of three known probes, the third is nearest to a class that is not its own.

      >>> from triplet_jax import evaluation
      >>> found = evaluation.open_set([1.0, 2.0, 2.5], [True, True, False], [2.2, 5.0])
      >>> print(f"{found['accuracy']:.2f} {found['dir_at_far_1e-1']:.2f} {found['roc_auc']:.2f}")
      0.67 0.67 0.83
    """
    known, is_right, unknown = _probes(known, is_right, unknown)
    result = {
        "accuracy": _share(is_right),
        "roc_auc": _area(known, unknown),
        "known": len(known),
        "unknown": len(unknown),
        "probes_not_finite": int(np.isinf(known).sum() + np.isinf(unknown).sum()),
    }
    for rate in false_accept_rates:
        limit = _limit(unknown, rate)
        identified = _share(is_right & (known < limit)) if len(unknown) else math.nan
        result[verification_metrics.rate_name("dir_at_far", rate)] = identified
    if threshold is not None:
        accepted = known <= threshold
        result |= {
            "identified": _share(accepted & is_right),
            "misnamed": _share(accepted & ~is_right),
            "rejected": _share(~accepted),
            "false_accepts": _share(unknown <= threshold),
        }
    return result


def open_set_threshold(
    known: Any, is_right: Any, unknown: Any, *, false_accept_rate: float
) -> Identified:
    """The largest threshold that accepts at most a given share of unknown probes.

    It is one of the distances given, or minus infinity where not even the smallest will do. The
    terms are those of Phillips, Grother and Micheals 2011,
    https://doi.org/10.1007/978-0-85729-932-1_21; see `open_set`.

    Args:
      known: as `open_set` takes it.
      is_right: as `open_set` takes it.
      unknown: as `open_set` takes it.
      false_accept_rate: the largest share of unknown probes that may be accepted.

    Raises:
      InputError: as `open_set`, or there are no unknown probes.

    Example:
      >>> from triplet_jax import evaluation
      >>> known, unknown = [1.0, 2.0, 2.5], [2.2, 5.0]
      >>> found = evaluation.open_set_threshold(
      ...     known, [True, True, False], unknown, false_accept_rate=0.1
      ... )
      >>> found.threshold, found.false_accepts, round(found.identified, 2)
      (2.0, 0.0, 0.67)
    """
    known, is_right, unknown = _probes(known, is_right, unknown)
    if not len(unknown):
        raise errors.InputError("unknown is empty: there is no false accept rate to measure.")
    every = np.concatenate([known, unknown])
    below = every[every < _limit(unknown, false_accept_rate)]
    threshold = float(below.max(initial=-np.inf))
    return Identified(
        threshold, _share(unknown <= threshold), _share(is_right & (known <= threshold))
    )


def _probes(known, is_right, unknown):
    """The distances in float64, NaN as infinite, and which known probes are right."""
    checked = []
    for name, given in (("known", known), ("unknown", unknown)):
        found = np.asarray(given)
        if found.ndim != 1 or found.dtype.kind not in "iuf":
            raise errors.InputError(
                f"{name} has the shape {found.shape} and dtype {found.dtype}: it must be a list of"
                " distances, a real number for each probe."
            )
        checked.append(np.where(np.isnan(found), np.inf, found).astype(np.float64))
    right = np.asarray(is_right, bool if len(checked[0]) == 0 else None)
    if right.dtype != bool or right.shape != checked[0].shape:
        raise errors.InputError(
            f"is_right has the shape {right.shape} and dtype {right.dtype}: it must hold one"
            f" boolean for each of the {len(checked[0])} known probes."
        )
    return checked[0], right, checked[1]


def _limit(unknown, rate):
    """The distance below which thresholds have at most this FAR."""
    verification_metrics.check_rate(rate)
    number = len(unknown)
    if not number:
        return np.inf
    allowed = np.searchsorted(np.arange(number + 1) / number, rate, side="right") - 1
    return np.inf if allowed == number else np.sort(unknown)[allowed]


def _share(chosen):
    return float(chosen.mean()) if len(chosen) else math.nan


def _area(known, unknown):
    if not len(known) or not len(unknown):
        return math.nan
    unknown = np.sort(unknown)
    nearer = len(unknown) - np.searchsorted(unknown, known, side="right")
    ties = len(unknown) - nearer - np.searchsorted(unknown, known, side="left")
    return float((nearer + ties / 2).mean() / len(unknown))
