"""Means, intervals and p-values, against scipy, by enumeration and by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silent_study.report.statistics import MOST_FLIPPED, holm, mcnemar_p, mean_error, sign_flip_p, summarize

SPREAD = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda values: np.ptp(values) > 1e-6)


@given(SPREAD)
def test_the_interval_is_students(values):
    summary = summarize(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert summary.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert summary.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert summary.sd == pytest.approx(stats.tstd(values), rel=1e-9)


@pytest.mark.parametrize(("values", "mean"), [([2.5], 2.5), ([], math.nan)])
def test_fewer_than_two_values_have_no_interval(values, mean):
    summary = summarize(values)
    found = (summary.n, summary.mean, summary.sd, summary.low, summary.high)
    assert found == pytest.approx((len(values), mean, *[math.nan] * 3), nan_ok=True)


def test_errors_of_a_mean_add_in_quadrature():
    assert mean_error([0.03, 0.04]) == pytest.approx(0.025)
    assert math.isnan(mean_error([]))


@given(SPREAD)
def test_the_p_value_is_students_and_agrees_with_the_interval(values):
    summary = summarize(values)
    found = summary.p
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)
    if abs(found - 0.05) > 1e-9:
        assert (found < 0.05) == (summary.low > 0 or summary.high < 0)


def test_p_values_where_there_is_no_spread():
    assert summarize([2.0, 2.0]).p == 0
    assert summarize([0.0, 0.0]).p == 1
    assert math.isnan(summarize([2.0]).p)


RASTERS = st.tuples(st.floats(0, 4), st.floats(0, 4))


@given(SPREAD, RASTERS)
def test_differences_of_readings_have_the_uncertainty_of_their_rasters(values, rasters):
    found = summarize(values, rasters)
    # The errors of two readings, each uniform over its raster, and the mean as far off as they may be together.
    sd = max(np.std(values, ddof=1), math.sqrt(rasters[0] ** 2 / 12 + rasters[1] ** 2 / 12))
    half = stats.t.ppf(0.975, len(values) - 1) * sd / math.sqrt(len(values))
    mean = np.mean(values)
    assert (found.low, found.high) == pytest.approx((mean - half - rasters[0], mean + half + rasters[1]))
    if abs(found.p - 0.05) > 1e-9:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize(("value", "raster", "decided"), [(2, 2, False), (2, 1, False), (8, 2, True), (-8, 2, True)])
def test_equal_readings_are_not_certain(value, raster, decided):
    found = summarize([value] * 3, (raster, raster))
    assert found.p > 0
    assert (found.low > 0 or found.high < 0) == decided == (found.p < 0.05)
    assert (sign_flip_p([value] * 6, (raster, raster)) == 1) == (abs(value) <= raster)


FEW = st.lists(st.one_of(st.floats(-10, 10), st.integers(-3, 3).map(float)), min_size=1, max_size=8)


@given(FEW)
def test_the_sign_flip_test_is_the_share_of_all_signs(values):
    total = abs(math.fsum(values))
    sums = [
        abs(math.fsum(map(float.__mul__, signs, values)))
        for signs in itertools.product((-1.0, 1.0), repeat=len(values))
    ]
    # Sums that differ in the last digits alone may be counted either way.
    at_least, at_most = (np.mean([each >= total + off for each in sums]) for off in (1e-7, -1e-7))
    assert at_least <= sign_flip_p(values) <= at_most


def test_the_sign_flip_test_is_scipys_and_has_an_end():
    values = np.random.default_rng(0).normal(0.5, 1, 14)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(list(values)) == pytest.approx(theirs.pvalue)
    # Of twelve equal signs, two of 2^12 choices reach the sum.
    assert sign_flip_p([0.3] * 12) == 2 / 2**12
    assert sign_flip_p([1.0] * MOST_FLIPPED) == 2 / 2**MOST_FLIPPED
    assert math.isnan(sign_flip_p([1.0] * (MOST_FLIPPED + 1)))
    assert math.isnan(sign_flip_p([]))


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemars_test_is_a_fair_coin(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar_p(first, second) == pytest.approx(expected)


def test_holms_correction_of_a_worked_example():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.06.
    assert holm([0.04, 0.01, math.nan, 0.03, 0.02]) == pytest.approx([0.06, 0.04, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_a_closed_test_of_bonferronis(values):
    # Independent definition: the largest Bonferroni p-value of all sets of hypotheses that hold this one.
    for place, adjusted in enumerate(holm(values)):
        others = sorted(values[:place] + values[place + 1 :])
        # Of the sets of one size, the largest minimum is that of the hypothesis with the largest others.
        worst = max((size + 1) * min([values[place], *others[len(others) - size :]]) for size in range(len(values)))
        assert adjusted == pytest.approx(min(1, worst))
