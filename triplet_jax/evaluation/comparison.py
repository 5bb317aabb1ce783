"""Compares arms of an experiment over seeds: means, intervals and paired tests."""

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float, Shaped


class Estimate(NamedTuple):
    """A mean with its confidence interval, whose ends are NaN for a single value."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return (self.high - self.low) / 2


class Difference(NamedTuple):
    """The mean of one arm minus another over their common seeds, with its confidence interval."""

    mean: float
    low: float
    high: float
    count: int
    p_value: float
    """The p-value of the two-sided paired t-test; NaN for fewer than two pairs."""
    detectable: float
    """The difference that so many pairs would show with a power of 0.8: see `detectable`."""


def estimate(values: Float[np.ndarray, "seeds"], confidence: float = 0.95) -> Estimate:
    """The mean and its Student-t interval: `mean +- t(n - 1) * s / sqrt(n)`.

    >>> found = estimate(np.array([0.7, 0.8, 0.9]))
    >>> print(f"{found.mean:.2f} +- {found.half_width:.2f}")
    0.80 +- 0.25

    Args:
      values: one number for each seed, at least one.
      confidence: the share of such intervals that hold the true mean.
    """
    values = np.asarray(values, np.float64)
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, float("nan"), float("nan"), count)
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, count - 1) * scipy.stats.sem(values)
    return Estimate(mean, float(mean - reach), float(mean + reach), count)


def share(count: int, of: int, confidence: float = 0.95) -> Estimate:
    """The share of runs to which something happened, and Wilson's interval.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    It is within [0, 1], and does not shrink to a point where it happened to no run or to all:
    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953.

    >>> found = share(0, 10)
    >>> print(f"{found.mean:.2f}, {found.low:.2f} to {found.high:.2f}")
    0.00, 0.00 to 0.28

    Args:
      count: of the runs to which it happened.
      of: how many runs there are, at least one.
      confidence: the share of such intervals that hold the true share.
    """
    found = scipy.stats.binomtest(count, of).proportion_ci(confidence, method="wilson")
    return Estimate(count / of, float(found.low), float(found.high), of)


def paired(
    values: dict[int, float], reference: dict[int, float], confidence: float = 0.95
) -> Difference | None:
    """Compares two arms seed by seed, by a paired t-test.

    What a seed does to both arms, by its initial weights and its batches, cancels. `p_value` is 1
    if every difference is 0, and 0 if all differences are equal and not 0.

    >>> found = paired({0: 0.8, 1: 0.7, 2: 0.9}, {0: 0.7, 1: 0.65, 2: 0.75})
    >>> print(f"{found.mean:.2f}, p = {found.p_value:.3f}")
    0.10, p = 0.074

    Args:
      values: the number of one arm for each seed.
      reference: the number of the other arm for each seed; only common seeds count.
      confidence: the share of such intervals that hold the true difference.

    Returns:
      The difference, or None if the arms have no common seed.
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None
    differences = np.array([values[seed] - reference[seed] for seed in seeds])
    mean, low, high, count = estimate(differences, confidence)
    if count < 2:
        p_value = float("nan")
    elif np.ptp(differences) == 0:
        p_value = 1.0 if mean == 0 else 0.0
    else:
        p_value = float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
    return Difference(mean, low, high, count, p_value, detectable(differences, confidence))


def detectable(
    differences: Float[np.ndarray, "seeds"], confidence: float = 0.95, power: float = 0.8
) -> float:
    """The smallest true difference that a paired t-test over so many seeds would be likely to find.

    It tells a difference that is not there from one that the seeds could not have shown. It is the
    d at which the test rejects d = 0 with probability `power`, for normal differences whose
    standard deviation s is the one seen. Then `mean * sqrt(n) / s` has Student's noncentral t
    distribution, with the noncentrality `d sqrt(n) / s` (Cohen 1988,
    https://doi.org/10.4324/9780203771587).

    >>> print(f"{detectable(np.array([0.01, 0.03, 0.02, 0.04, 0.00])):.3f}")
    0.027

    Args:
      differences: one arm minus the other for each seed.
      confidence: one minus the level of the two-sided test.
      power: the probability of finding the difference.

    Returns:
      The difference; NaN for fewer than two seeds.
    """
    freedom = len(differences) - 1
    if freedom < 1:
        return float("nan")
    critical = scipy.stats.t.ppf(0.5 + confidence / 2, freedom)
    # Over the distribution of the standard deviation: scipy's noncentral t gives NaN for few seeds.
    probabilities = (np.arange(10_000) + 0.5) / 10_000
    limits = critical * np.sqrt(scipy.stats.chi2.ppf(probabilities, freedom) / freedom)

    def lacking(noncentrality):
        above, below = (scipy.special.ndtr(sign * noncentrality - limits) for sign in (1, -1))
        return power - np.mean(above + below)

    noncentrality = scipy.optimize.brentq(lacking, 0.0, 2.0 * critical + 3.0)
    return float(noncentrality * scipy.stats.sem(differences))


def over_classes(
    values: Float[np.ndarray, "queries"],
    labels: Shaped[np.ndarray, "queries"],
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean over queries, with an interval for other classes of the same kind.

    Queries of one class are hard or easy together, so that an interval from single queries would be
    too narrow. Each draw takes as many classes as there are, with replacement, each with all of its
    queries; the interval holds the middle of these means: the percentile bootstrap (Efron and
    Tibshirani 1993, https://doi.org/10.1201/9780429246593) over clusters. Of two embeddings of the
    same examples, pass the difference of their scores.

    >>> found = over_classes(np.array([0.1, 0.3, 0.2, 0.2]), np.array(["a", "a", "b", "b"]))
    >>> print(f"{found.mean:.2f}, {found.low:.2f} to {found.high:.2f}, {found.count} classes")
    0.20, 0.20 to 0.20, 2 classes

    Args:
      values: a number for each query; NaN where a query has none, which leaves it out.
      labels: the class of each query.
      draws: the number of draws.
      confidence: the share of the draws that the interval holds.
      seed: decides the draws.

    Returns:
      The mean and its interval, with NaN ends for a single class; `count` is the number of classes.
    """
    counted = ~np.isnan(values)
    _, of_query = np.unique(labels[counted], return_inverse=True)
    size = np.bincount(of_query).astype(np.float64)
    total = np.bincount(of_query, values[counted].astype(np.float64))
    classes = len(size)
    mean = float(total.sum() / size.sum()) if classes else float("nan")
    if classes < 2:
        return Estimate(mean, float("nan"), float("nan"), classes)
    random = np.random.default_rng(seed)
    times = random.multinomial(classes, np.full(classes, 1 / classes), size=draws)
    tail = (1 - confidence) / 2
    low, high = np.quantile((times @ total) / (times @ size), (tail, 1 - tail))
    return Estimate(mean, float(low), float(high), classes)


def holm(p_values: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """Corrects p-values for making many tests (Holm 1979, https://www.jstor.org/stable/4615733).

    In rising order each p-value is multiplied by the number of those from it on, and raised to the
    corrected value before it if that is larger; none exceeds 1. NaNs stay, and count as no tests.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(p_values.shape, np.nan)
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values[tests], kind="stable")]
    scaled = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def best_of_n(
    values: Float[np.ndarray, "seeds"],
    *,
    groups: int,
    size: int,
    draws: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """What the best of several groups of runs of one arm reaches by luck alone.

    The best of many settings looks good by selection, even if no setting helps. Wu et al. 2021
    (https://arxiv.org/abs/2012.03107) therefore compare it with the best of as many groups of
    standard runs. Here those groups are simulated from n runs, which are taken as normal with
    their mean m and standard deviation s, including what n runs leave unknown of both. Each draw is

        sigma = s sqrt((n - 1) / chi^2(n - 1)),   mu = m + sigma N(0, 1) / sqrt(n)
        best = max of `groups` draws of  mu + sigma N(0, 1) / sqrt(size)

    Args:
      values: one number for each of the arm's n runs, at least two.
      groups: how many settings the best was chosen from.
      size: how many runs each setting's mean was taken over.
      draws: the number of simulations.
      seed: decides the random numbers of the simulation.

    Returns:
      The mean of the best, and the interval that holds 95% of the draws; `count` is `groups`.
    """
    random = np.random.default_rng(seed)
    values = np.asarray(values, np.float64)
    count = len(values)
    scale = values.std(ddof=1) * np.sqrt((count - 1) / random.chisquare(count - 1, draws))
    level = values.mean() + scale * random.normal(size=draws) / np.sqrt(count)
    highest = random.normal(size=(draws, groups)).max(axis=1)
    best = level + scale * highest / np.sqrt(size)
    low, high = np.quantile(best, (0.025, 0.975))
    return Estimate(float(np.mean(best)), float(low), float(high), groups)
