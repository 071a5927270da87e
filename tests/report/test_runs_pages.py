"""Where a number leads: cells, runs and their curves."""

import math

import numpy as np
import pandas as pd
import pytest

from silent_study.report.charts import SIDE, Line, Style, chart, thinned
from silent_study.report.figures import cell_styles
from silent_study.report.runs_pages import cell_pages

OWN = Style("own")


def drawn(values, epochs=None):
    """A chart of one line."""
    curve = pd.DataFrame({"epoch": epochs or range(1, len(values) + 1), "bpd": values})
    return chart([Line("one", OWN, thinned(curve, "bpd", 100))], "Bits")


def points(polyline):
    return [tuple(map(int, point.split(","))) for point in polyline.split()]


def test_a_chart_is_its_points_scaled_to_a_square():
    found = drawn([5.0, 4.0, 3.0], [1, 2, 4])
    ((style, polyline),) = found.lines
    across, down = zip(*points(polyline), strict=True)
    assert style == OWN
    assert across == (0, 333, SIDE)
    # The ticks lie on the scale of the line.
    places, texts = zip(*found.y_ticks, strict=True)
    slope, start = np.polyfit([float(text) for text in texts], places, 1)
    assert down == pytest.approx([start + slope * bpd for bpd in (5, 4, 3)], abs=2)
    assert slope < 0
    assert "from 5.000 in epoch 1 to 3.000 in epoch 4" in found.label


def test_first_epochs_do_not_flatten_a_chart():
    down = [y for _, y in points(drawn([1e6, *np.linspace(4, 3, 99)]).lines[0][1])]
    assert down[0] < -SIDE
    assert down[-1] - down[10] > 0.7 * SIDE


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0], [math.nan, 3.0, math.inf]])
def test_a_chart_of_next_to_nothing_can_be_drawn(values):
    assert all(0 <= y <= SIDE for _, y in points(drawn(values).lines[0][1]))


def test_a_chart_of_nothing_is_none():
    assert drawn([math.nan]) is None


def test_thinning_keeps_the_ends():
    curve = pd.DataFrame({"epoch": range(1000), "bpd": range(1000)})
    kept = thinned(curve, "bpd", 60)["epoch"].tolist()
    assert (kept[0], kept[-1], len(kept)) == (0, 999, 60)
    assert max(np.diff(kept)) <= 18


@pytest.fixture(scope="module")
def pages(whole):
    made = cell_pages(whole.cells, list(whole.claims.values()), whole.records, whole.context)
    assert [page.cell.name for page in made] == [cell.name for cell in whole.cells]
    return {page.cell.name: page for page in made}


def test_a_cell_has_its_settings_once_and_its_runs_what_differs(whole, pages):
    page = pages["digits/learnable/reinforce"]
    shared = dict(page.settings)
    assert (shared["estimator"], shared["latent_dim"], shared["data.shape"]) == ("reinforce", "16", "1x8x8")
    assert not {"seed", "learning_rate"} & set(shared)
    titles = [f"seed {seed}, learning_rate {rate}" for seed, rate in ((0, 0.001), (1, 0.001), (2, 0.001), (0, 0.0001))]
    table = page.table.frame
    assert [run.title for run in page.runs] == table["Run"].tolist() == titles
    assert [link.target for link in table["Run"]] == [run.record.name for run in page.runs]
    assert table["Reported"].tolist() == ["yes", "yes", "yes", "grid alone"]
    assert table["Split"].tolist() == ["test", "test", "test", "holdout"]
    for run, line in zip(page.runs[:3], table.to_dict("records"), strict=False):
        report = run.record.metrics("report")
        assert (line["BPD"], line["KL"]) == (f"{report['bpd']:.3f}", f"{report['kl']:.2f}")
        assert line["MSE, sampled and clamped"] == f"{report['mse_sampled_clamped']:.3f}"
        assert dict(run.facts)["started"].startswith("2026-01")
    assert pages["digits/learnable/gumbel-softmax+silent"].runs == ()


def test_a_cell_is_drawn_beside_those_that_it_is_compared_with(whole, pages):
    legend = pages["digits/learnable/reinforce"].chart.legend
    assert [(style.role, label) for style, label in legend] == [
        ("own", "REINFORCE"),
        ("other", "Silent (Bernoulli)"),
        ("other", "REINFORCE + SG"),
    ]
    # As in the figures: a colour for each estimator, dashes for those without silent gradients.
    alone, silent, guided = (style for style, _ in legend)
    colours, dashes = zip(*(style.css.split("; ") for style in (alone, silent, guided)), strict=True)
    assert colours[0] == colours[2] != colours[1]
    assert dashes == ("stroke-dasharray: 6 3", *["stroke-dasharray: none"] * 2)
    assert alone.css == cell_styles(whole.cells)["digits/learnable/reinforce"]
