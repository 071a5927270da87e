"""Means, intervals, and what became of a cell, against scipy and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from silent_gradients.estimators import REGISTRY
from silent_study.methods import METHODS
from silent_study.report.summary import cells, holm, mean_error, p_value, summarize


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda values: np.ptp(values) > 1e-6))
def test_the_interval_is_students(values):
    summary = summarize(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert summary.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert summary.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert summary.sd == pytest.approx(stats.tstd(values), rel=1e-9)


def test_a_known_interval():
    # Three values around 2 with sd 1: half width t(0.975, 2) / sqrt(3) = 4.302653 / 1.732051.
    summary = summarize([1.0, 2.0, 3.0])
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.high - 2.0 == pytest.approx(2.484138, abs=1e-6)


def test_one_value_has_a_mean_but_no_interval():
    summary = summarize([2.5])
    assert summary.mean == 2.5
    assert math.isnan(summary.sd)
    assert math.isnan(summary.low)


def test_no_value_has_nothing():
    assert summarize([]).n == 0
    assert math.isnan(summarize([]).mean)


def test_errors_of_a_mean_add_in_quadrature():
    assert mean_error([0.03, 0.04]) == pytest.approx(0.025)
    assert math.isnan(mean_error([]))


def test_cells_come_in_the_papers_order_with_those_never_run(builder, make_context):
    builder.add("digits/learnable/reinforce")
    builder.add("digits/learnable/silent-gaussian")
    names = [
        "digits/learnable/reinforce",
        "digits/learnable/reparameterization+silent",
        "digits/learnable/silent-gaussian",
        "digits/fixed/gumbel-softmax",
    ]
    found = cells(builder.records, make_context(names))
    assert [cell.name for cell in found] == [names[3], names[2], names[1], names[0]]
    assert [cell.status for cell in found] == ["not run", "1 of 3 seeds run", "not run", "1 of 3 seeds run"]


def test_a_status_says_everything_that_limits_the_numbers(builder, make_context):
    cell = "digits/fixed/reinforce"
    builder.add(cell, seed=0, diverged_epoch=17)
    builder.add(cell, seed=1, diverged_epoch=5)
    builder.add(cell, seed=2, flattened=False, revision="b" * 16)
    (found,) = cells(builder.records, make_context([cell]))
    assert found.status == "diverged (2 of 3, epochs 5, 17); not flattened (1 of 3); source revisions differ"
    assert [run.seed for run in found.evaluated] == [2]


def test_codes_that_say_nothing_are_a_collapse(builder, make_context):
    cell = "digits/learnable/reinforce"
    for seed, active in enumerate((0, 3, 0)):
        builder.add(cell, seed=seed, active_units=active)
    (found,) = cells(builder.records, make_context([cell]))
    assert found.status == "collapsed (2 of 3)"
    assert [run.seed for run in found.collapsed] == [0, 2]


def test_grid_runs_do_not_enter_a_cell(builder, make_context):
    cell = "digits/fixed/reinforce"
    builder.add(cell, ("baselines", "seeds"), seed=0, bpd=2.0)
    builder.add(cell, ("baselines",), seed=0, bpd=9.0, learning_rate=1e-4)
    (found,) = cells(builder.records, make_context([cell], seeds=(0,)))
    assert found.values("bpd") == {0: 2.0}
    assert found.status == "complete"


def test_a_cell_whose_whole_grid_diverged_says_so(make_context):
    cell = "digits/fixed/reinforce"
    selections = {cell: {"status": "diverged", "point": {"learning_rate": 1e-3}, "configurations": 4, "bpd": None}}
    (found,) = cells([], make_context([cell], selections=selections))
    assert found.status == "diverged (every grid point)"


@pytest.mark.parametrize(
    ("experiment", "name", "expected"),
    [
        ("fixed", "silent-bernoulli", ("bernoulli", "none", True, "Silent (Bernoulli)")),
        ("learnable", "silent-gaussian", ("gaussian", "none", True, "Silent (Gaussian)")),
        ("learnable", "reinforce+silent", ("bernoulli", "reinforce", True, "REINFORCE + SG")),
        ("fixed", "reparameterization", ("gaussian", "reparameterization", False, "Reparameterization")),
        ("learnable", "reinforce+sampled", ("bernoulli", "reinforce", False, "REINFORCE + sampled guide")),
        ("fixed", "rloo-gaussian", ("gaussian", "rloo", False, "RLOO (Gaussian)")),
        ("learnable", "rloo-gaussian+silent", ("gaussian", "rloo", True, "RLOO (Gaussian) + SG")),
        (
            "learnable",
            "reinforce-silent-baseline",
            ("bernoulli", "reinforce-silent-baseline", False, "REINFORCE, silent baseline"),
        ),
    ],
)
def test_methods_read_as_in_the_paper(experiment, name, expected):
    method = METHODS[experiment][name]
    assert (method.posterior, method.sampled_estimator, method.silent, method.label) == expected


def test_what_is_beyond_the_paper_comes_after_it(make_context):
    names = ["rloo", "reinforce+sampled", "reinforce", "reparameterization+sampled", "silent-bernoulli"]
    found = cells([], make_context([f"digits/learnable/{name}" for name in names]))
    ordered = ["silent-bernoulli", "reinforce", "reparameterization+sampled", "reinforce+sampled", "rloo"]
    assert [cell.method.name for cell in found] == ordered
    assert [cell.method.beyond for cell in found] == [False, False, True, True, True]


@pytest.mark.parametrize("experiment", list(METHODS))
def test_no_two_methods_read_the_same(experiment):
    labels = [METHODS[experiment][name].label for name in METHODS[experiment]]
    assert len(set(labels)) == len(labels)


def test_every_estimator_has_a_name_for_readers():
    for name in REGISTRY:
        if name != "silent":
            assert METHODS["fixed"][name].estimator_label != name


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda values: np.ptp(values) > 1e-6))
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


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_that_of_statsmodels(values):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    assert holm(values) == pytest.approx(multitest.multipletests(values, method="holm")[1].tolist())
