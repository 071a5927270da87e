"""Means, intervals and p-values, against scipy and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silent_study.report.statistics import holm, mean_error, p_value, summarize

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
    found = p_value(summary)
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)
    if abs(found - 0.05) > 1e-9:
        assert (found < 0.05) == (summary.low > 0 or summary.high < 0)


def test_p_values_where_there_is_no_spread():
    assert p_value(summarize([2.0, 2.0])) == 0
    assert p_value(summarize([0.0, 0.0])) == 1
    assert math.isnan(p_value(summarize([2.0])))


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
