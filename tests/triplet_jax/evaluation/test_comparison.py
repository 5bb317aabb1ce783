"""Statistics against scipy, on cases that are known."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from triplet_jax.evaluation import comparison

NUMBERS = hnp.arrays(np.float64, st.integers(2, 20), elements=st.floats(-10, 10, width=16))


@given(NUMBERS)
def test_estimate_is_students_interval(values):
    mean, low, high, count = comparison.estimate(values)
    expected = (
        scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95) if np.ptp(values) else None
    )
    assert count == len(values)
    assert mean == pytest.approx(values.mean())
    if expected:
        assert (low, high) == pytest.approx((expected.low, expected.high))
    else:
        assert low == pytest.approx(mean) and high == pytest.approx(mean)


@given(st.integers(1, 200), st.data())
def test_the_ends_of_a_share_are_where_its_score_test_has_the_level(of, data):
    count = data.draw(st.integers(0, of))
    found = comparison.share(count, of)
    assert 0 <= found.low <= found.mean == count / of <= found.high <= 1
    for end in (found.low, found.high):
        if 0 < end < 1:
            score = abs(found.mean - end) / math.sqrt(end * (1 - end) / of)
            assert score == pytest.approx(scipy.stats.norm.ppf(0.975), rel=1e-6)


def test_a_single_value_has_no_interval():
    found = comparison.estimate(np.array([0.5]))
    assert found.mean == 0.5
    assert math.isnan(found.low) and math.isnan(found.half_width)


@given(NUMBERS, st.integers(0, 2**31 - 1))
def test_paired_is_scipys_paired_test(values, seed):
    reference = values + np.random.default_rng(seed).normal(size=len(values))
    ours = comparison.paired(dict(enumerate(values)), dict(enumerate(reference)))
    theirs = scipy.stats.ttest_rel(values, reference)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_only_common_seeds_are_paired():
    found = comparison.paired({0: 1.0, 1: 2.0, 5: 9.0}, {1: 1.5, 0: 0.25, 7: 0.0})
    assert found.count == 2
    assert found.mean == pytest.approx((0.75 + 0.5) / 2)
    assert comparison.paired({0: 1.0}, {1: 1.0}) is None
    assert math.isnan(comparison.paired({0: 1.0}, {0: 0.5}).p_value)


def test_equal_differences_have_a_p_value():
    assert comparison.paired({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p_value == 1.0
    assert comparison.paired({0: 1.5, 1: 2.5}, {0: 1.0, 1: 2.0}).p_value == 0.0


@pytest.mark.parametrize("count", [2, 5, 20])
def test_a_detectable_difference_is_found_in_four_of_five_trials(count):
    random = np.random.default_rng(count)
    seen = random.normal(scale=0.3, size=count)
    difference = comparison.detectable(seen)
    trials = difference + random.normal(scale=seen.std(ddof=1), size=(20_000, count))
    found = scipy.stats.ttest_1samp(trials, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_what_can_be_detected_does_not_depend_on_the_mean():
    seen = np.array([0.1, 0.3, 0.2])
    assert comparison.detectable(seen + 5) == pytest.approx(comparison.detectable(seen))
    assert comparison.detectable(np.array([0.2, 0.2])) == 0
    assert math.isnan(comparison.detectable(np.array([0.2])))


def test_holm_on_a_case_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    np.testing.assert_allclose(
        comparison.holm(np.array([0.04, np.nan, 0.01, 0.03, 0.02])),
        [0.06, np.nan, 0.04, 0.06, 0.06],
    )
    np.testing.assert_allclose(comparison.holm(np.array([0.9, 0.8])), [1.0, 1.0])
    assert np.isnan(comparison.holm(np.array([np.nan]))).all()


def test_the_best_of_many_groups_wins_by_luck():
    values = np.random.default_rng(0).normal(size=300)
    one = comparison.best_of_n(values, groups=1, size=5)
    assert one.mean == pytest.approx(values.mean(), abs=0.02)
    many = comparison.best_of_n(values, groups=30, size=5)
    # The median of the largest of 30 normal means.
    normal = scipy.stats.norm.ppf(0.5 ** (1 / 30)) * values.std() / math.sqrt(5)
    assert many.mean - values.mean() == pytest.approx(normal, rel=0.1)


def test_luck_is_rarely_exceeded_where_no_arm_is_better():
    random = np.random.default_rng(1)
    above = 0
    for _ in range(400):
        reference = random.normal(size=5)
        best = random.normal(size=(3, 5)).mean(axis=1).max()
        above += best > comparison.best_of_n(reference, groups=3, size=5, draws=1000).high
    assert above / 400 == pytest.approx(0.025, abs=0.025)


def test_an_interval_over_classes_holds_the_mean_of_other_classes():
    random = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        # The truth is 0; queries of a class share most of their luck.
        of_class = random.normal(size=25)
        labels = random.integers(0, 25, 400)
        values = of_class[labels] + 0.3 * random.normal(size=400)
        found = comparison.over_classes(values, labels, draws=300, seed=seed)
        assert found.mean == pytest.approx(values.mean()) and found.low < found.mean < found.high
        held += found.low <= 0 <= found.high
    assert 0.86 < held / 200 < 0.99  # an interval from single queries holds it in a third


def test_an_interval_over_classes_leaves_out_queries_without_a_score():
    values, labels = np.array([0.2, np.nan, 0.4, 0.9]), np.array(["a", "a", "b", "b"])
    found = comparison.over_classes(values, labels)
    rest = ~np.isnan(values)
    assert found == comparison.over_classes(values[rest], labels[rest])
    assert found.mean == pytest.approx(0.5) and found.count == 2
    alone = comparison.over_classes(values[:1], labels[:1])
    assert alone.mean == 0.2 and np.isnan(alone.low)
