"""Expected bests against all draws, and the table of them."""

import itertools
import math
import statistics

import pytest

from silent_study.report.claims import claims
from silent_study.report.equal_budgets import equal_budgets, expected_best
from silent_study.report.summary import cells


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5])
def test_the_expected_best_is_the_mean_over_all_draws(budget):
    values = [3.2, 2.9, 3.0, 3.05, 2.95]
    every = [min(draw) for draw in itertools.combinations(values, budget)]
    assert expected_best(values, budget) == pytest.approx(statistics.fmean(every), rel=1e-14)


def test_divergence_counts_where_a_draw_may_hold_nothing_else():
    values = [3.0, math.inf, 2.0]
    assert expected_best(values, 1) == math.inf
    assert expected_best(values, 2) == pytest.approx((2.0 + 2.0 + 3.0) / 3)
    assert expected_best(values, 3) == 2.0


@pytest.mark.parametrize("budget", [0, 4])
def test_a_budget_beyond_what_was_tried_is_refused(budget):
    with pytest.raises(ValueError, match=f"a budget of 1 to 3, found {budget}"):
        expected_best([1.0, 2.0, 3.0], budget)


def test_the_method_that_tried_more_is_taken_down_to_the_other(builder, make_context):
    guided, alone = "digits/learnable/gumbel-softmax+silent", "digits/learnable/gumbel-softmax"
    for rate, bpd in ((1e-3, 3.0), (3e-3, 3.2)):
        builder.add(alone, ("baselines",), bpd=bpd, learning_rate=rate)
    for rate, bpd in ((1e-3, 2.9), (2e-3, 3.1), (3e-3, 3.5)):
        builder.add(guided, ("guided",), bpd=bpd, learning_rate=rate)
    context = make_context([guided, alone])
    frame = equal_budgets(claims(cells(builder.records, context)), builder.records, context)
    (row,) = frame.to_dict("records")
    assert (row["tried_first"], row["tried_second"], row["budget"]) == (3, 2, 2)
    shift = 0.02  # the selection split's bounds, as the fixture has them
    assert (row["best_first"], row["best_second"]) == pytest.approx((2.9 + shift, 3.0 + shift))
    assert row["expected_first"] == pytest.approx((2.9 + 2.9 + 3.1) / 3 + shift)
    assert row["expected_second"] == pytest.approx(3.0 + shift)


def test_configurations_of_another_fixed_variance_do_not_count(builder, make_context):
    silent, other = "digits/fixed/silent-bernoulli", "digits/fixed/reinforce"
    for cell, bounds in ((silent, {0.01: 3.0, 0.1: 3.5}), (other, {0.01: 4.2, 0.1: 4.1})):
        for variance, bpd in bounds.items():
            rounds = ("baselines", "seeds") if variance == 0.01 else ("baselines",)
            builder.add(cell, rounds, bpd=bpd, variance=variance)
    context = make_context([silent, other])
    (row,) = equal_budgets(claims(cells(builder.records, context)), builder.records, context).to_dict("records")
    assert (row["tried_first"], row["tried_second"]) == (1, 1)
    assert row["best_second"] - row["best_first"] == pytest.approx(1.2)


def test_methods_without_a_grid_have_no_row(builder, make_context):
    names = ["digits/learnable/gumbel-softmax+silent", "digits/learnable/gumbel-softmax"]
    builder.add(names[0], ("guided",))
    context = make_context(names)
    assert equal_budgets(claims(cells(builder.records, context)), builder.records, context).empty
