"""Where a number leads: cells, runs, their curves and their grids."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from silent_study.report.charts import SIDE, Line, Look, chart, thinned
from silent_study.report.claims import claims
from silent_study.report.dossiers import dossiers, pairs
from silent_study.report.figures import figure_looks
from silent_study.report.grid_maps import grid_maps
from silent_study.report.summary import cells

OWN = Look("own")
CELL = "digits/learnable/reinforce+silent"


def points(polyline):
    return [tuple(map(int, point.split(","))) for point in polyline.split()]


def test_a_chart_is_its_points_scaled_to_a_square():
    curve = pd.DataFrame({"epoch": [1, 2, 4], "bpd": [5.0, 4.0, 3.0]})
    drawn = chart([Line("one", OWN, curve)], "Bits")
    assert drawn is not None
    ((look, polyline),) = drawn.lines
    across, down = zip(*points(polyline), strict=True)
    assert look == OWN
    assert across == (0, 333, SIDE)
    # The ticks lie on the scale of the line.
    places, texts = zip(*drawn.y_ticks, strict=True)
    slope, start = np.polyfit([float(text) for text in texts], places, 1)
    assert down == pytest.approx([start + slope * bpd for bpd in (5, 4, 3)], abs=2)
    assert slope < 0
    assert "from 5.000 in epoch 1 to 3.000 in epoch 4" in drawn.label


def test_first_epochs_do_not_flatten_a_chart():
    curve = pd.DataFrame({"epoch": range(1, 101), "bpd": [1e6, *np.linspace(4, 3, 99)]})
    drawn = chart([Line("one", OWN, curve)], "Bits")
    down = [y for _, y in points(drawn.lines[0][1])]
    assert down[0] < -SIDE
    assert down[-1] - down[10] > 0.7 * SIDE


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [math.nan, 3.0, math.inf]])
def test_a_chart_of_next_to_nothing_can_be_drawn(values):
    curve = pd.DataFrame({"epoch": range(1, len(values) + 1), "bpd": values})
    drawn = chart([Line("one", OWN, thinned(curve, "bpd", 10))], "Bits")
    assert all(0 <= y <= SIDE for _, y in points(drawn.lines[0][1]))


def test_a_chart_of_nothing_is_none():
    curve = pd.DataFrame({"epoch": [1], "bpd": [math.nan]})
    assert chart([Line("one", OWN, thinned(curve, "bpd", 10))], "Bits") is None


def test_thinning_keeps_the_ends():
    curve = pd.DataFrame({"epoch": range(1000), "bpd": range(1000)})
    kept = thinned(curve, "bpd", 60)["epoch"].tolist()
    assert (kept[0], kept[-1], len(kept)) == (0, 999, 60)
    assert max(np.diff(kept)) <= 18


def grid_of(builder, make_context, points, **context):
    """Maps of a grid of points (changes of settings, BPD or None for a diverged run, whether selected)."""
    for number, (changes, bpd, selected) in enumerate(points):
        rounds = ("guided", "seeds") if selected else ("guided",)
        diverged = {"diverged_epoch": 2} if bpd is None else {"bpd": bpd}
        builder.add(CELL, rounds, selected=selected, name=f"{CELL}/point-{number:02d}", **diverged, **changes)
    return grid_maps(builder.records, make_context([CELL], **context))


def test_a_grid_of_one_axis_is_a_row(builder, make_context):
    rates = [
        ({"silent__annealing_rate": rate}, bpd, bpd == 2.0) for rate, bpd in ((0.1, 2.0), (0.02, 2.5), (0.05, 2.2))
    ]
    (found,) = grid_of(builder, make_context, rates)
    assert (found.axes, found.across, found.columns) == ((), "silent.annealing_rate", ("0.02", "0.05", "0.1"))
    ((_, tiles),) = found.rows
    assert [tile.text for tile in tiles] == ["2.520", "2.220", "2.020"]
    assert [tile.selected for tile in tiles] == [False, False, True]
    assert [tile.target[-2:] for tile in tiles] == ["01", "02", "00"]
    # The quantile of three quarters lies halfway between 2.22 and 2.52.
    assert [tile.heat for tile in tiles] == pytest.approx([0, 0.15 / 0.35, 1], abs=0.01)
    assert not found.jointly


def test_axes_that_go_together_are_one_and_the_rest_are_rows(builder, make_context):
    grid = [
        (
            {
                "learning_rate": rate,
                "silent__mean_rate": rate,
                "silent__annealing_rate": annealing,
                "silent__cutoff_epoch": cutoff,
            },
            None if rate == 0.01 and cutoff is None else 2 + rate + annealing,
            rate == 0.001 and annealing == 0.05 and cutoff == 5,
        )
        for rate in (0.001, 0.01)
        for annealing in (0.1, 0.05)
        for cutoff in (None, 5, 10)
    ]
    (found,) = grid_of(builder, make_context, grid)
    assert found.axes == ("learning_rate, silent.mean_rate", "silent.annealing_rate")
    assert (found.across, found.columns) == ("silent.cutoff_epoch", ("5", "10", "none"))
    assert [names for names, _ in found.rows] == [
        ("0.001", "0.05"),
        ("0.001", "0.1"),
        ("0.01", "0.05"),
        ("0.01", "0.1"),
    ]
    tiles = {
        (*names, column): tile for names, row in found.rows for column, tile in zip(found.columns, row, strict=True)
    }
    assert tiles["0.01", "0.1", "none"].diverged
    assert tiles["0.01", "0.1", "none"].text == "diverged (epoch 2)"
    assert tiles["0.01", "0.1", "10"].text == "2.130"
    assert [names for names, tile in tiles.items() if tile.selected] == [("0.001", "0.05", "5")]


def test_a_point_that_a_grid_lacks_is_a_gap(builder, make_context):
    grid = [({"learning_rate": a, "weight_decay": b}, 2.0, False) for a, b in ((0.1, 0.1), (0.1, 0.2), (0.2, 0.2))]
    (found,) = grid_of(builder, make_context, grid)
    assert [[tile is None for tile in row] for _, row in found.rows] == [[False, False], [True, False]]


def test_a_grid_of_one_point_shows_its_axes(builder, make_context):
    axes = {CELL: ("silent.annealing_rate", "silent.cutoff_epoch")}
    (found,) = grid_of(builder, make_context, [({}, 2.0, True)], grid_axes=axes)
    assert (found.axes, found.across) == (("silent.annealing_rate",), "silent.cutoff_epoch")
    ((names, (tile,)),) = found.rows
    assert (names, tile.heat) == (("0.1",), 1)


def test_a_cell_has_its_settings_once_and_its_runs_what_differs(study):
    records, context = study
    found = cells(records, context)
    made = {dossier.cell.name: dossier for dossier in dossiers(found, claims(found), records, context)}
    assert list(made) == [cell.name for cell in found]
    dossier = made["digits/learnable/reinforce"]
    shared = dict(dossier.settings)
    assert (shared["estimator"], shared["latent_dim"], shared["data.shape"]) == ("reinforce", "16", "1x8x8")
    assert not {"seed", "learning_rate"} & set(shared)
    assert [run.title for run in dossier.runs] == [
        "seed 0, learning_rate 0.001",
        "seed 1, learning_rate 0.001",
        "seed 2, learning_rate 0.001",
        "seed 0, learning_rate 0.0001",
    ]
    assert [run.reported for run in dossier.runs] == [True, True, True, False]
    assert [run.split for run in dossier.runs] == ["test", "test", "test", "holdout"]
    records_by_name = {record.name: record for record in records}
    for run in dossier.runs[:3]:
        report = records_by_name[run.name].evaluation["report"]
        assert run.measured == (f"{report['bpd']:.3f}", f"{report['kl']:.2f}", f"{report['mse_sampled_clamped']:.3f}")
        assert dict(run.facts)["started"].startswith("2026-01")
    assert made["digits/learnable/gumbel-softmax+silent"].runs == ()


def test_a_cell_is_drawn_beside_those_that_it_is_compared_with(study):
    records, context = study
    found = cells(records, context)
    made = {dossier.cell.name: dossier for dossier in dossiers(found, claims(found), records, context)}
    legend = made["digits/learnable/reinforce"].chart.legend
    assert [(look.role, label) for look, label in legend] == [
        ("own", "REINFORCE"),
        ("other", "Silent (Bernoulli)"),
        ("other", "REINFORCE + SG"),
    ]
    # As in the figures: a colour for each estimator, dashes for those without silent gradients.
    alone, silent, guided = (look for look, _ in legend)
    assert alone.colour == guided.colour != silent.colour
    assert alone.dashes
    assert (silent.dashes, guided.dashes) == ((), ())
    members = [cell for cell in found if (cell.dataset, cell.experiment) == ("digits", "learnable")]
    looks = {cell.method.name: look for cell, look in figure_looks(members)}
    assert (alone.colour, alone.dashes) == looks["reinforce"]
    drawn = pairs(found, claims(found), context)
    assert [(pair.first.method.name, pair.second.method.name) for pair in drawn[-2:]] == [
        ("gumbel-softmax+silent", "gumbel-softmax"),
        ("reinforce+silent", "reinforce"),
    ]
    assert len(drawn[-1].chart.lines) == 6


def test_every_measured_number_of_the_page_leads_to_its_cell_or_run(gathered):
    html = (gathered / "report.html").read_text()
    for name, experiment in (("table-2-fixed-variance", "fixed"), ("table-3-bits-per-dimension", "learnable")):
        frame = pd.read_csv(gathered / "tables" / f"{name}.csv")
        frame = frame[(frame["metric"] == "bpd") & frame["measured"].notna()]
        section = html[html.index(f'<section id="{name}"') :]
        section = section[: section.index("</section>")]
        for row in frame.to_dict("records"):
            cell = re.escape(f"digits/{experiment}/{row['method']}")
            assert re.search(rf'<a href="#{cell}">{row["measured"]:.3f}', section)
    grid = pd.read_csv(gathered / "tables" / "grid.csv")
    for row in grid.to_dict("records"):
        # On the map, and in the list.
        assert len(re.findall(rf'<a href="#{re.escape(row["name"])}">{row["selection_bpd"]:.3f}', html)) == 2
