"""Where a number leads: cells, runs and their curves."""

import math

import numpy as np
import pandas as pd
import pytest

from silent_study.report.figures import run_curve
from silent_study.report.runs_pages import cell_pages


def curve(values):
    epochs = range(1, len(values) + 1)
    return pd.DataFrame({"epoch": epochs, "selection_bpd": values, "train_bpd": np.subtract(values, 0.5)})


def test_a_runs_curve_is_thinned_and_without_its_highest_values():
    found = run_curve(curve([1e6, *np.linspace(4, 3, 999)]))
    assert (found["epoch"][-1], found["selection"][-1], found["training"][-1]) == (1000, 3.0, 2.5)
    assert len(found["epoch"]) == 36
    assert max(found["selection"]) < 4
    assert max(np.diff(found["epoch"])) <= 26


@pytest.mark.parametrize(("values", "epochs"), [([3.0], [1]), ([math.nan, 3.0, math.inf], [2]), ([math.nan], None)])
def test_a_curve_of_next_to_nothing(values, epochs):
    found = run_curve(curve(values))
    assert (found and found["epoch"]) == epochs


@pytest.fixture(scope="module")
def pages(whole):
    made = cell_pages(whole.cells, list(whole.claims.values()), whole.records, whole.context)
    assert [page.cell.name for page in made] == [cell.name for cell in whole.cells]
    return {page.cell.name: page for page in made}


def test_a_cell_has_its_settings_once_and_its_runs_what_differs(whole, pages):
    page = pages["digits/learnable/reinforce"]
    shared = dict(page.settings)
    assert (shared["estimator"], shared["latent dim"], shared["data shape"]) == ("reinforce", "16", "1x8x8")
    assert not {"seed", "learning rate"} & set(shared)
    titles = [f"seed {seed}, learning rate {rate}" for seed, rate in ((0, 0.001), (1, 0.001), (2, 0.001), (0, 0.0001))]
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


def test_a_cell_is_drawn_beside_those_that_it_is_compared_with(pages):
    page = pages["digits/learnable/reinforce"]
    assert page.figure == "digits-learnable-curves"
    compared = ("reinforce", "silent-bernoulli", "reinforce+silent")
    assert page.drawn == tuple(f"digits/learnable/{method}" for method in compared)
    assert page.section == "table-3-bits-per-dimension"
