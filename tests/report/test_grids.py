"""Grid points as a table and as maps."""

import itertools

import pytest
from tests.report.conftest import row

from silent_study.report.grids import grid, grid_maps

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
    assert (found.axes, found.across) == (("guide's annealing rate",), "guide's cutoff epoch")
    ((names, ((_, heat),)),) = found.rows
    assert (names, heat) == (("0.1",), 1)
    assert table(study)["point"].tolist() == ["silent.annealing_rate=0.1, silent.cutoff_epoch=None"]


@pytest.mark.parametrize("selected", [2.0, 2.2])
def test_a_grid_of_one_axis_is_a_row(study, selected):
    bounds = {0.1: 2.0, 0.02: 2.5, 0.05: 2.2}
    (found,) = maps(study, [({"silent__annealing_rate": rate}, bpd, bpd == selected) for rate, bpd in bounds.items()])
    assert (found.axes, found.across, found.columns) == ((), "guide's annealing rate", ("0.02", "0.05", "0.1"))
    ((_, tiles),) = found.rows
    drawn, heats = zip(*tiles, strict=True)
    assert [point.text for point in drawn] == ["2.520", "2.220", "2.020"]
    assert [point.selected for point in drawn] == [False, selected == 2.2, selected == 2.0]
    assert [point.run.name[-2:] for point in drawn] == ["01", "02", "00"]
    # The quantile of three quarters lies halfway between 2.22 and 2.52.
    assert heats == pytest.approx((0, 0.15 / 0.35, 1), abs=0.01)


def test_axes_that_go_together_are_one_and_the_rest_are_rows(study):
    points = []
    for rate, annealing, cutoff in itertools.product((0.001, 0.01), (0.1, 0.05), (None, 5, 10)):
        rates = {"learning_rate": rate, "silent__mean_rate": rate}
        silent = {"silent__annealing_rate": annealing, "silent__cutoff_epoch": cutoff}
        bpd = None if rate == 0.01 and cutoff is None else 2 + rate + annealing
        points.append((rates | silent, bpd, (rate, annealing, cutoff) == (0.001, 0.05, 5)))
    (found,) = maps(study, points)
    assert found.axes == ("learning rate, guide's mean rate", "guide's annealing rate")
    assert (found.across, found.columns) == ("guide's cutoff epoch", ("5", "10", "none"))
    assert [names for names, _ in found.rows] == list(itertools.product(("0.001", "0.01"), ("0.05", "0.1")))
    tiles = {
        (*names, column): tile
        for names, row in found.rows
        for column, (tile, _) in zip(found.columns, row, strict=True)
    }
    assert tiles["0.01", "0.1", "none"].text == "diverged (epoch 2)"
    assert tiles["0.01", "0.1", "10"].text == "2.130"
    assert [names for names, tile in tiles.items() if tile.selected] == [("0.001", "0.05", "5")]


@pytest.mark.parametrize(
    ("chosen", "edges"),
    [
        ((0.01, 0.05, 5), ""),
        ((0.001, 0.05, 5), "learning_rate, silent.mean_rate"),
        ((0.1, 0.02, 2), "learning_rate, silent.annealing_rate, silent.cutoff_epoch, silent.mean_rate"),
        ((0.01, 0.05, None), "silent.cutoff_epoch"),
    ],
)
def test_a_point_selected_at_the_edge_of_its_grid_is_marked(study, chosen, edges):
    every = itertools.product((0.001, 0.01, 0.1), (0.1, 0.05, 0.02), (None, 5, 2))
    points = []
    for rate, annealing, cutoff in every:
        changes = {"learning_rate": rate, "silent__mean_rate": rate, "silent__annealing_rate": annealing}
        points.append((changes | {"silent__cutoff_epoch": cutoff}, 2.0, (rate, annealing, cutoff) == chosen))
    maps(study, points)
    study.add(CELL.removesuffix("+silent"), ("baselines", "seeds"))
    frame = table(study)
    assert row(frame[frame["edge"] != ""])["edge"] == edges if edges else set(frame["edge"]) == {""}
    laid_out = study.tables
    marks = f"of 27 and 1 configurations{f'; REINFORCE + SG at the edge of {edges}' if edges else ''}"
    assert set(laid_out["claims"].data["marks"]) == {marks}
    assert any(note.startswith("Seed 0 selected the configurations") for note in laid_out["claims"].notes)
    shown = laid_out["grid"].parts[0].frame
    assert ("At the edge of" in shown) == bool(edges)


@pytest.mark.parametrize("points", [[({}, 2.0, True)], [({"guide": "log-linear"}, 2.0, True), ({}, 2.1, False)]])
def test_a_grid_of_one_value_or_of_words_has_no_edge(study, points):
    maps(study, [({f"silent__{name}": value for name, value in changes.items()}, *rest) for changes, *rest in points])
    assert set(table(study)["edge"]) == {""}


def test_a_point_that_a_grid_lacks_is_a_gap(study):
    points = ((0.1, 0.1), (0.1, 0.2), (0.2, 0.2))
    (found,) = maps(study, [({"learning_rate": a, "weight_decay": b}, 2.0, False) for a, b in points])
    assert [[tile is None for tile in row] for _, row in found.rows] == [[False, False], [True, False]]
