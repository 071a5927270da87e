"""Grid points as a table, as maps, and at equal budgets."""

import itertools
import math
import statistics

import pytest
from tests.report.conftest import row

from silent_study.report.grids import equal_budgets, grid, grid_maps
from silent_study.report.statistics import expected_best

CELL = "digits/learnable/reinforce+silent"


def table(study):
    return grid(study.points, study.context)


def maps(study, points):
    """Maps of a grid of points (changes of settings, BPD or None for a diverged run, whether selected)."""
    for number, (changes, bpd, selected) in enumerate(points):
        rounds = ("guided", "seeds") if selected else ("guided",)
        diverged = {"diverged_epoch": 2} if bpd is None else {"bpd": bpd}
        study.add(CELL, rounds, selected=selected, name=f"{CELL}/point-{number:02d}", **diverged, **changes)
    return grid_maps(study.points, study.context)


def test_the_grid_has_every_point_and_marks_the_selected(whole):
    frame = table(whole)
    # 12 cells ran, each with two points.
    assert len(frame) == 24
    assert frame.groupby(["experiment", "method"])["selected"].sum().eq(1).all()
    chosen = frame[frame["selected"]]
    assert set(chosen["point"]) == {"learning_rate=0.001"}
    best = frame.groupby(["experiment", "method"])["selection_bpd"].transform("min")
    assert (chosen["selection_bpd"] == best[frame["selected"]]).all()


def test_a_selection_marks_its_run_before_the_seeds_have_run(study):
    cell = "digits/fixed/reinforce"
    chosen = study.add(cell, ("baselines",), selected=False)
    study.add(cell, ("baselines",), selected=False, learning_rate=1e-4)
    study.options["selections"] = {cell: {"status": "selected", "run": chosen.name, "configurations": 2}}
    frame = table(study)
    assert frame[frame["selected"]]["name"].tolist() == [chosen.name]


def test_a_grid_of_one_point_shows_its_declared_axes(study):
    study.options["grid_axes"] = {CELL: ("silent.annealing_rate", "silent.cutoff_epoch")}
    (found,) = maps(study, [({}, 2.0, True)])
    assert (found.axes, found.across) == (("silent.annealing_rate",), "silent.cutoff_epoch")
    ((names, ((_, heat),)),) = found.rows
    assert (names, heat) == (("0.1",), 1)
    assert table(study)["point"].tolist() == ["silent.annealing_rate=0.1, silent.cutoff_epoch=None"]


@pytest.mark.parametrize("selected", [2.0, 2.2])
def test_a_grid_of_one_axis_is_a_row(study, selected):
    bounds = {0.1: 2.0, 0.02: 2.5, 0.05: 2.2}
    (found,) = maps(study, [({"silent__annealing_rate": rate}, bpd, bpd == selected) for rate, bpd in bounds.items()])
    assert (found.axes, found.across, found.columns) == ((), "silent.annealing_rate", ("0.02", "0.05", "0.1"))
    ((_, tiles),) = found.rows
    drawn, heats = zip(*tiles, strict=True)
    assert [point.text for point in drawn] == ["2.520", "2.220", "2.020"]
    assert [point.selected for point in drawn] == [False, selected == 2.2, selected == 2.0]
    assert [point.run.name[-2:] for point in drawn] == ["01", "02", "00"]
    # The quantile of three quarters lies halfway between 2.22 and 2.52.
    assert heats == pytest.approx((0, 0.15 / 0.35, 1), abs=0.01)
    # A selected point that is not the best was selected for several methods.
    assert found.jointly == (selected == 2.2)


def test_axes_that_go_together_are_one_and_the_rest_are_rows(study):
    points = []
    for rate, annealing, cutoff in itertools.product((0.001, 0.01), (0.1, 0.05), (None, 5, 10)):
        rates = {"learning_rate": rate, "silent__mean_rate": rate}
        silent = {"silent__annealing_rate": annealing, "silent__cutoff_epoch": cutoff}
        bpd = None if rate == 0.01 and cutoff is None else 2 + rate + annealing
        points.append((rates | silent, bpd, (rate, annealing, cutoff) == (0.001, 0.05, 5)))
    (found,) = maps(study, points)
    assert found.axes == ("learning_rate, silent.mean_rate", "silent.annealing_rate")
    assert (found.across, found.columns) == ("silent.cutoff_epoch", ("5", "10", "none"))
    assert [names for names, _ in found.rows] == list(itertools.product(("0.001", "0.01"), ("0.05", "0.1")))
    tiles = {
        (*names, column): tile
        for names, row in found.rows
        for column, (tile, _) in zip(found.columns, row, strict=True)
    }
    assert tiles["0.01", "0.1", "none"].text == "diverged (epoch 2)"
    assert tiles["0.01", "0.1", "10"].text == "2.130"
    assert [names for names, tile in tiles.items() if tile.selected] == [("0.001", "0.05", "5")]


def test_a_point_that_a_grid_lacks_is_a_gap(study):
    points = ((0.1, 0.1), (0.1, 0.2), (0.2, 0.2))
    (found,) = maps(study, [({"learning_rate": a, "weight_decay": b}, 2.0, False) for a, b in points])
    assert [[tile is None for tile in row] for _, row in found.rows] == [[False, False], [True, False]]


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


def budgets(study):
    return equal_budgets(list(study.claims.values()), study.points, study.context)


def test_the_method_that_tried_more_is_taken_down_to_the_other(study):
    alone = CELL.removesuffix("+silent")
    for cell, bounds in ((alone, {1e-3: 3.0, 3e-3: 3.2}), (CELL, {1e-3: 2.9, 2e-3: 3.1, 3e-3: 3.5})):
        for rate, bpd in bounds.items():
            study.add(cell, ("baselines" if cell == alone else "guided",), bpd=bpd, learning_rate=rate)
    found = row(budgets(study))
    assert (found["tried_first"], found["tried_second"], found["budget"]) == (3, 2, 2)
    shift = 0.02  # the selection split's bounds, as the builder has them
    assert (found["best_first"], found["best_second"]) == pytest.approx((2.9 + shift, 3.0 + shift))
    assert found["expected_first"] == pytest.approx((2.9 + 2.9 + 3.1) / 3 + shift)
    assert found["expected_second"] == pytest.approx(3.0 + shift)


def test_configurations_of_another_fixed_variance_do_not_count(study):
    silent, other = "digits/fixed/silent-bernoulli", "digits/fixed/reinforce"
    for cell, bounds in ((silent, {0.01: 3.0, 0.1: 3.5}), (other, {0.01: 4.2, 0.1: 4.1})):
        for variance, bpd in bounds.items():
            rounds = ("baselines", "seeds") if variance == 0.01 else ("baselines",)
            study.add(cell, rounds, bpd=bpd, variance=variance)
    found = row(budgets(study))
    assert (found["tried_first"], found["tried_second"]) == (1, 1)
    assert found["best_second"] - found["best_first"] == pytest.approx(1.2)


def test_methods_without_a_grid_have_no_row(study):
    study.planned = (CELL, CELL.removesuffix("+silent"))
    study.add(CELL, ("guided",))
    assert budgets(study).empty
