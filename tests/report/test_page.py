"""Where a number leads: cells and runs."""

import pytest

from silent_study.report.cells import by_cell
from silent_study.report.page import cell_page


@pytest.fixture(scope="module")
def pages(whole):
    runs = by_cell(whole.records)
    return {cell.name: cell_page(cell, runs.get(cell.name, ())) for cell in whole.cells}


def test_a_cell_has_its_settings_once_and_its_runs_what_differs(whole, pages):
    page = pages["digits/learnable/reinforce"]
    shared = dict(page.settings)
    assert (shared["estimator"], shared["latent dim"], shared["data shape"]) == ("reinforce", "16", "1x8x8")
    assert not {"seed", "learning rate"} & set(shared)
    titles = [f"seed {seed}, learning rate {rate}" for seed, rate in ((0, 0.001), (1, 0.001), (2, 0.001), (0, 0.0001))]
    table = page.table.frame
    assert [title for _, title, _ in page.runs] == table["Run"].tolist() == titles
    assert [link.target for link in table["Run"]] == [run.name for run, _, _ in page.runs]
    assert table["Reported"].tolist() == ["yes", "yes", "yes", "grid alone"]
    assert table["Split"].tolist() == ["test", "test", "test", "holdout"]
    for (run, _, facts), line in zip(page.runs[:3], table.to_dict("records"), strict=False):
        report = run.metrics("report")
        assert (line["BPD"], line["KL"]) == (f"{report['bpd']:.3f}", f"{report['kl']:.2f}")
        assert line["MSE, sampled and clamped"] == f"{report['mse_sampled_clamped']:.3f}"
        assert dict(facts)["started"].startswith("2026-01")
    assert pages["digits/learnable/gumbel-softmax+silent"].runs == ()
