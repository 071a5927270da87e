"""Every table's numbers, computed a second time by other means, and how they are printed."""

import json
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.report.conftest import MISSING, row, variances

from silent_study.report import printed, tables
from silent_study.report.figures import draw
from silent_study.report.printed import NOTHING, interval, monte_carlo, number, significant

TABLE_1, TABLE_2, TABLE_3, TABLE_4 = (
    "table-1-gradient-variance",
    "table-2-fixed-variance",
    "table-3-bits-per-dimension",
    "table-4-kl-divergence",
)
VALUES = (6.71, 6.72, 6.74)
LIMIT = {"bpd": 6.7, "kl": 198.0, "expected_squared_error": 3.67, "mean_decoded_squared_error": 2.17}


def measurements(study, experiment, *metrics):
    return tables.measurements(study.cells, study.context, experiment, metrics)


def test_table_2_is_mean_interval_published_difference_and_closed_form(study):
    cell = "mnist/fixed/silent-gaussian"
    for seed, value in enumerate(VALUES):
        study.add(cell, seed=seed, bpd=value, mse=3.0 + 0.1 * seed, limit=LIMIT)
    study.options["selections"] = {cell: {"configurations": 6}}
    frame = measurements(study, "fixed", *tables.ALL_METRICS)
    assert frame["metric"].tolist() == list(tables.ALL_METRICS)
    bpd = row(frame, metric="bpd")
    low, high = stats.t.interval(0.95, 2, np.mean(VALUES), stats.sem(VALUES))
    assert bpd["measured"] == pytest.approx(np.mean(VALUES))
    assert (bpd["low"], bpd["high"]) == pytest.approx((low, high))
    assert bpd["published"] == 6.718
    assert bpd["difference"] == pytest.approx(np.mean(VALUES) - 6.718)
    assert bpd["monte_carlo_error"] == pytest.approx(0.002 / math.sqrt(3))
    assert bpd["closed_form"] == pytest.approx(6.7)
    assert (bpd["split"], bpd["images"], bpd["samples"]) == ("test", "360", "16")
    assert (bpd["epochs"], bpd["configurations"], bpd["status"]) == ("20", 6, "complete")
    mse = row(frame, metric="mse_sampled_clamped")
    assert (mse["measured"], mse["published"]) == (pytest.approx(3.1), 3.011)
    assert math.isnan(row(frame, metric="mse_sampled")["published"])
    assert row(frame, metric="mse_sampled")["closed_form"] == pytest.approx(3.67)
    assert row(frame, metric="mse_mean_decoded")["closed_form"] == pytest.approx(2.17)
    # Binary latent variables have no closed form.
    study.add("mnist/fixed/silent-bernoulli", limit=LIMIT)
    assert math.isnan(row(measurements(study, "fixed", "bpd"), method="silent-bernoulli")["closed_form"])


def test_the_learnable_tables_have_factor_analysis_beside_the_measurements(study):
    for method in ("reparameterization", "reinforce"):
        study.add_seeds(f"digits/learnable/{method}", (2.1, 2.2, 2.3))
    assert not any("closed form" in printed.markdown(table) for table in study.tables.values())
    study.options["factor_analysis"] = {"digits/learnable": LIMIT}
    laid_out = study.tables
    for name, limit, text in ((TABLE_3, 6.7, "6.700"), (TABLE_4, 198.0, "198.00")):
        assert row(laid_out[name].data, method="reparameterization")["closed_form"] == limit
        # A discrete code does not contain it.
        assert math.isnan(row(laid_out[name].data, method="reinforce")["closed_form"])
        frame = laid_out[name].parts[0].frame.set_index("Method")
        shown = frame[f"{'BPD' if name == TABLE_3 else 'KL'} closed form"]
        assert dict(shown) == {"Reparameterization": text, "REINFORCE": NOTHING}
        assert any("Closed form: factor analysis" in note for note in laid_out[name].notes)


def test_an_importance_weighted_bound_is_shown_where_there_is_one(study):
    for name in ("fixed/reinforce", "learnable/reinforce", "learnable/reparameterization"):
        study.add(f"digits/{name}")
    assert not any("mportance-weighted" in printed.markdown(table) for table in study.tables.values())
    weighted = {"importance_samples": 500, "importance_weighted_bpd": 2.4444, "importance_weighted_mc_error": 0.003}
    for record in study.records[:2]:
        record.evaluation["report"] |= weighted
    laid_out = study.tables
    for stem in (TABLE_2, TABLE_3):
        bound = row(laid_out[stem].data, method="reinforce", metric="importance_weighted_bpd")
        assert (bound["measured"], bound["monte_carlo_error"]) == (2.4444, 0.003)
        assert "2.444 ± 0.0030" in printed.markdown(laid_out[stem])
        assert any("the bound of 500 samples" in note for note in laid_out[stem].notes)
    assert "mportance-weighted" not in printed.markdown(laid_out[TABLE_4])
    tree = tables.metrics(study.cells, study.context)["digits"]
    assert tree["fixed"]["reinforce"]["importance_weighted_bpd"] == 2.4444
    assert "importance_weighted_bpd" not in tree["learnable"]["reparameterization"]


def test_every_row_names_preset_protocol_and_data(whole):
    for name in (TABLE_1, TABLE_2, TABLE_3, TABLE_4, "grid"):
        frame = whole.tables[name].data
        assert set(frame["preset"]) == {"digits"}
        assert set(frame["protocol"]) == {"holdout"}
        assert set(frame["data_sha256"]) == {"0123456789ab"}
        assert name == "grid" or set(frame["data_version"]) == {"1.0"}


def test_a_cell_without_a_run_has_a_row_without_numbers(whole):
    frame = measurements(whole, "learnable", "kl")
    missing = row(frame, method=MISSING.split("/")[2])
    assert (missing["status"], missing["seeds"]) == ("not run", 0)
    assert math.isnan(missing["measured"])
    assert len(frame) == 8


def test_diverged_seeds_leave_the_mean_and_show(study):
    cell = "digits/learnable/reinforce"
    study.add(cell, seed=0, bpd=2.0)
    for seed in (1, 2):
        study.add(cell, seed=seed, diverged_epoch=17)
    result = row(measurements(study, "learnable", "bpd"))
    assert (result["measured"], result["seeds"]) == (2.0, 1)
    assert math.isnan(result["low"])
    assert result["status"] == "diverged (2 of 3, epoch 17)"


def test_table_1_keeps_both_reductions_and_averages_seeds(study):
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        entries = [variances(10, "reparameterization", value)]
        study.add("mnist/fixed/reparameterization", seed=seed, gradient_variance=entries)
    study.add("mnist/fixed/silent-gaussian", gradient_variance=[])
    frame = tables.gradient_variance(study.cells, study.context)
    measured = row(frame, method="reparameterization")
    assert (measured["batch_mean"], measured["per_image_mean"]) == (pytest.approx(3.0), pytest.approx(192.0))
    assert measured["batch_mean_sd"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert (measured["epoch"], measured["seeds"], measured["images"], measured["draws"]) == (10, 3, "64", "100")
    unmeasured = row(frame, method="silent-gaussian")
    assert unmeasured["published"] == 0
    assert pd.isna(unmeasured["epoch"])
    assert math.isnan(unmeasured["batch_mean"])


def test_runs_have_one_row_each_whatever_rounds_ask_for_them(whole):
    frame = tables.runs(whole.records)
    assert len(frame) == len({record.name for record in whole.records}) == 48
    assert len(frame[frame["rounds"] == "baselines+seeds"]) == 10
    assert set(frame["setting.learning_rate"]) == {1e-3, 1e-4}
    assert set(frame["setting.betas"]) == {"0.9, 0.999"}
    assert set(frame["setting.data.shape"]) == {"1x8x8"}
    assert "setting.silent.annealing_rate" in frame
    assert "setting.silent" not in frame


def test_a_curve_is_of_the_selected_runs_and_ends_in_their_mean(whole):
    curves = tables.curves(whole.records)
    assert len(curves) == 12
    cell = "digits/learnable/reinforce"
    frame = curves[cell]
    assert list(frame.columns) == ["epoch", "seed_0", "seed_1", "seed_2", "selection_bpd"]
    runs = [run for run in whole.records if run.cell == cell and run.round == "seeds"]
    lines = [(run.folder / "curve.jsonl").read_text().splitlines() for run in sorted(runs, key=lambda run: run.seed)]
    seeds = [[json.loads(line)["selection_bpd"] for line in each] for each in lines]
    assert frame[["seed_0", "seed_1", "seed_2"]].T.to_numpy().tolist() == seeds
    assert frame["selection_bpd"].tolist() == pytest.approx(list(map(statistics.fmean, zip(*seeds, strict=True))))
    assert frame["epoch"].tolist() == list(range(1, 21))
    together = tables.curves_by_group(whole.records)
    assert set(together) == {"digits/fixed", "digits/learnable"}
    own = together["digits/learnable"].query("method == 'reinforce'").drop(columns="method")
    assert own.to_numpy().tolist() == frame.to_numpy().tolist()


def test_a_curve_has_the_evaluated_epochs_and_loses_a_diverged_seed(study):
    cell = "digits/learnable/reinforce"
    study.add(cell, seed=0, bpd=2.0, epochs=4)
    study.add(cell, seed=1, bpd=3.0, epochs=4, diverged_epoch=3)
    for run in study.records:
        run.curve.loc[run.curve["epoch"] == 1, "selection_bpd"] = math.nan
    frame = tables.curves(study.records)[cell]
    # By hand: 2 / epoch + 0.02 over each seed's bound, and nothing of the first epoch.
    assert frame["epoch"].tolist() == [2, 3, 4]
    assert frame["selection_bpd"].tolist() == pytest.approx([3.52, 2.02 + 2 / 3, 2.52])


def test_the_metrics_tree_is_keyed_by_names_alone(whole):
    tree = tables.metrics(whole.cells, whole.context)
    assert (tree["preset"], tree["protocol"]) == ("digits", "holdout")
    entry = tree["digits"]["fixed"]["reparameterization"]
    cell = "digits/fixed/reparameterization"
    runs = [record for record in whole.records if record.cell == cell and record.round == "seeds"]
    values = [run.metrics("report")["bpd"] for run in runs]
    assert entry["bpd"] == pytest.approx(np.mean(values))
    assert entry["bpd_sd"] == pytest.approx(np.std(values, ddof=1))
    assert entry["kl"] == pytest.approx(22.0)
    assert (entry["mse"], entry["seeds"], entry["epochs"], entry["diverged"]) == (3.0, 3, 20, 0)
    assert tree["digits"]["learnable"]["gumbel-softmax+silent"] == {"seeds": 0, "diverged": 0}
    text = json.dumps(tree, allow_nan=False)
    assert not any(record.identity["id"] in text for record in whole.records)


def test_an_empty_plan_has_empty_tables(study):
    assert all(not table.parts for table in study.tables.values())
    assert tables.runs([]).empty
    assert not tables.curves([])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (interval(math.nan, math.nan, 1), "one seed: none"),
        (interval(math.nan, math.nan, 1, of="pair"), "one pair: none"),
        (interval(math.nan, math.nan, 0), NOTHING),
        (interval(-1.0, 2.0, 3), "[−1.000, 2.000]"),
        (interval(-1.0, 2.0, 3, 1, sign=True), "[−1.0, +2.0]"),
        (number(0.5, sign=True), "+0.500"),
        (number(-0.0001), "0.000"),
        (monte_carlo(0.0), "exact"),
        (monte_carlo(0.0021), "0.0021"),
        (significant(0.0), "0"),
        (significant(12345.6), "12,300"),
        (significant(-2.25e6), "−2,250,000"),
        (significant(3.21e12), "3.21e+12"),
        (significant(999.6), "1,000"),
    ],
)
def test_numbers_as_text(text, expected):
    assert text == expected


def test_markdown_escapes_what_would_break_a_row():
    part = printed.Part("Caption", pd.DataFrame({"A": ["x|y"], "G b": ["line\nline"]}), 1)
    text = printed.markdown(printed.Table("t", "Title", ("A note.",), pd.DataFrame(), (part,)))
    assert "| A | G b |" in text
    assert "| x\\|y | line line |" in text


@pytest.mark.parametrize(
    ("experiment", "stem", "caption"),
    [
        ("log-linear", "log-linear-precision", "digits, log-linear precision, linear decoder"),
        ("two-layer", "two-layer-decoder", "digits, two-layer decoder"),
    ],
)
def test_an_experiment_of_ours_has_tables_of_its_own(study, experiment, stem, caption):
    for other, bpd in (("fixed", 2.1), ("learnable", 2.2)):
        study.add_seeds(f"digits/{other}/reparameterization", [bpd, bpd + 0.01, bpd + 0.02])
    assert not any(name.startswith(experiment) for name in study.tables)
    study.add_seeds(f"digits/{experiment}/reparameterization", [2.3, 2.31, 2.32])
    study.options["factor_analysis"] = {"digits/learnable": LIMIT, f"digits/{experiment}": LIMIT | {"bpd": 2.25}}
    laid_out = study.tables
    table = laid_out[stem]
    assert row(table.data, metric="bpd")["closed_form"] == 2.25
    line = row(table.parts[0].frame)
    assert (line["BPD"], line["BPD closed form"]) == ("2.310", "2.250")
    assert "BPD published" not in line
    assert table.parts[0].caption == caption
    assert table.title.startswith("Beyond the paper")
    assert set(laid_out[f"{experiment}-gradient-variance"].data["experiment"]) == {experiment}
    for name, other in laid_out.items():
        if not name.startswith(experiment) and name != "grid":
            assert experiment not in set(other.data.get("experiment", []))


def test_what_is_beyond_the_paper_stands_below_it_and_says_so(study):
    endings = ("", "+silent", "+sampled")
    names = [f"mnist/learnable/{estimator}{end}" for estimator in ("reinforce", "rloo") for end in endings]
    names += [f"mnist/fixed/{name}" for name in ("reinforce", "rloo")]
    for index, name in enumerate(names):
        study.add_seeds(name, [2 + index / 10] * 3)
    laid_out = study.tables
    papers, beyond = laid_out[TABLE_3].parts
    for part, expected in (
        (papers, {"REINFORCE": "2.000", "REINFORCE + SG": "2.100"}),
        (beyond, {"REINFORCE + sampled guide": "2.200", "RLOO": "2.300"}),
        (beyond, {"RLOO + SG": "2.400", "RLOO + sampled guide": "2.500"}),
    ):
        assert expected.items() <= dict(zip(part.frame["Method"], part.frame["BPD"], strict=True)).items()
    assert (len(papers.frame), len(beyond.frame)) == (2, 4)
    assert papers.frame["BPD published"].tolist()[1] == "2.94"
    assert "BPD published" not in beyond.frame
    assert ["beyond the paper" in part.caption for part in (papers, beyond)] == [False, True]
    for name in (TABLE_1, TABLE_2):
        parts = [part for part in laid_out[name].parts if "fixed variance" in part.caption]
        assert [part.frame["Method"].unique().tolist() for part in parts] == [["REINFORCE"], ["RLOO"]]
        assert ["beyond the paper" in part.caption for part in parts] == [False, True]
    ours = [part for part in laid_out["claims"].parts if "beyond the paper" in part.caption]
    orderings = ["REINFORCE + SG < REINFORCE + sampled guide", "RLOO + SG < RLOO + sampled guide"]
    assert [part.frame["Ordering"].tolist() for part in ours] == [orderings]
    # The data frames mark it as well.
    for name in (TABLE_2, TABLE_3):
        by_method = laid_out[name].data.groupby("method")["beyond_paper"].all()
        assert {name for name, marked in by_method.items() if not marked} <= {"reinforce", "reinforce+silent"}


@pytest.mark.parametrize(
    ("experiment", "name", "words"),
    [("fixed", TABLE_2, "the reported decoder itself"), ("learnable", TABLE_3, "a guide")],
)
def test_the_notes_name_the_decoder_of_a_silent_baseline(study, experiment, name, words):
    for method, expected in (("reinforce", False), ("reinforce-silent-baseline", True)):
        study.add(f"digits/{experiment}/{method}")
        notes = [note for note in study.tables[name].notes if note.startswith("Silent baselines")]
        assert any(words in note for note in notes) == expected


OFFICIAL, STAND_IN = "imagenet32", "tiny_imagenet32"
TITLES = ("ImageNet 32x32", "Tiny ImageNet at 32x32")
VERSIONS = {
    OFFICIAL: {"title": TITLES[0], "version": "all of it", "sha256": "a" * 64},
    STAND_IN: {"title": TITLES[1], "version": "a stand-in, not comparable", "sha256": "b" * 64, "levels": 256},
}


def test_the_stand_in_is_never_mixed_up_with_the_official_set(study, tmp_path):
    for dataset, bpd in ((OFFICIAL, 6.0), (STAND_IN, 5.0)):
        for method in ("reinforce", "reinforce+silent"):
            sha256 = VERSIONS[dataset]["sha256"]
            study.add_seeds(f"{dataset}/learnable/{method}", [bpd, bpd + 0.01], data__sha256=sha256)
    study.options["datasets"] = VERSIONS
    table = study.tables[TABLE_3]
    official, stand_in = (part.frame for part in table.parts)
    assert official["BPD"].tolist() == ["6.005"] * 2
    assert stand_in["BPD"].tolist() == ["5.005"] * 2
    # The paper's numbers are of the official set alone.
    assert official["BPD published"].tolist()[0] == "6.87"
    assert "BPD published" not in stand_in
    assert table.data[table.data["dataset"] == STAND_IN]["published"].isna().all()
    # Every table, every figure and the page name the data set in full.
    for table in study.tables.values():
        for part in table.parts:
            assert re.search(rf"^({'|'.join(TITLES)}), learnable variance", part.caption)
        if table.parts and table.name != "claims":
            notes = " ".join(table.notes)
            assert "Tiny ImageNet at 32x32 (tiny_imagenet32; a stand-in, not comparable): sha256 bbbbbbbbbbbb" in notes
            assert "a uniform model has 8.000 bits/dim" in notes
            assert "ImageNet 32x32 (imagenet32; all of it): sha256 aaaaaaaaaaaa" in notes
    titles = [drawing.title for drawing in draw(study.cells, study.context)]
    assert any(TITLES[1] in title for title in titles)
    assert not any(STAND_IN in title for title in titles)
    study.gather(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert f"Data set {TITLES[1]}" in page
    assert f"a stand-in, not comparable; sha256 {'b' * 64}" in page
