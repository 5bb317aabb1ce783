"""Is one arm of an experiment better than another? Means, intervals and paired tests over seeds."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float


class Estimate(NamedTuple):
    """A mean with its 95% interval; the ends are NaN for a single value."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def half_width(self) -> float:
        """The mean is known to plus or minus this."""
        return (self.high - self.low) / 2


class Difference(NamedTuple):
    """One arm minus another, over the seeds that both have."""

    mean: float
    low: float
    high: float
    count: int
    p_value: float
    """Of the two-sided paired t-test; NaN for fewer than two pairs."""


def estimate(values: Float[np.ndarray, "seeds"], confidence: float = 0.95) -> Estimate:
    """The mean and its Student-t interval: `mean +- t(n - 1) * s / sqrt(n)`.

    Args:
      values: one number a seed, at least one.
      confidence: of the interval.
    """
    values = np.asarray(values, np.float64)
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return Estimate(mean, float("nan"), float("nan"), count)
    reach = scipy.stats.t.ppf(0.5 + confidence / 2, count - 1) * scipy.stats.sem(values)
    return Estimate(mean, float(mean - reach), float(mean + reach), count)


def paired(
    values: dict[int, float], reference: dict[int, float], confidence: float = 0.95
) -> Difference | None:
    """Compares two arms seed by seed.

    What a seed does to both arms alike, its initial weights and its batches, cancels.
    `p_value` is 1 where every difference is 0, and 0 where all are equal and not 0.

    Args:
      values: by seed.
      reference: likewise; only common seeds count.
      confidence: of the interval.

    Returns:
      The difference, or None without a common seed.
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
    return Difference(mean, low, high, count, p_value)


def holm(p_values: Float[np.ndarray, "tests"]) -> Float[np.ndarray, "tests"]:
    """P-values corrected for making many tests, after Holm 1979.

    Sorted p-values are multiplied by how many are at least as large, and never fall. NaNs are no
    tests, and stay.
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
    """What the best of `groups` groups of further runs of one arm reaches by luck alone.

    The best of many settings wins by selection even where none helps. Wu et al. 2021 therefore
    compare it with the best of as many groups of standard runs. Here those groups are simulated
    from a few runs: normal, with the runs' mean m and standard deviation s, and with what n runs
    leave unknown of both. In each draw

        sigma = s sqrt((n - 1) / chi^2(n - 1)),   mu = m + sigma N(0, 1) / sqrt(n)
        best = max of `groups` draws of  mu + sigma N(0, 1) / sqrt(size)

    Args:
      values: one number for each of the arm's n runs, at least two.
      groups: how many settings the best was chosen from.
      size: how many runs each setting's mean was taken over.
      draws: how often the choice is simulated.
      seed: of the simulation.

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
