"""Every table's numbers, computed a second time by other means."""

import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from silent_study.report import tables
from silent_study.report.claims import claims
from silent_study.report.layout import layout, printed
from silent_study.report.layout.text import NOTHING, interval, monte_carlo, number, significant
from silent_study.report.summary import cells

LIMIT = {
    "bpd": 6.7,
    "kl": 198.0,
    "expected_squared_error": 3.67,
    "mean_decoded_squared_error": 2.17,
    "used_directions": 190,
}


def three_seeds(builder, cell, values=(6.71, 6.72, 6.74), **options):
    for seed, value in enumerate(values):
        builder.add(cell, seed=seed, bpd=value, mse=3.0 + 0.1 * seed, **options)


def row(frame, **where):
    for column, value in where.items():
        frame = frame[frame[column] == value]
    (found,) = frame.to_dict("records")
    return found


def test_table_2_is_mean_interval_published_difference_and_closed_form(builder, make_context):
    cell = "mnist/fixed/silent-gaussian"
    three_seeds(builder, cell, limit=LIMIT)
    context = make_context([cell], selections={cell: {"configurations": 6}})
    frame = tables.measurements(cells(builder.records, context), context, "fixed", tables.ALL_METRICS)
    assert frame["metric"].tolist() == list(tables.ALL_METRICS)
    values = [6.71, 6.72, 6.74]
    bpd = row(frame, metric="bpd")
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert bpd["measured"] == pytest.approx(np.mean(values))
    assert (bpd["low"], bpd["high"]) == pytest.approx((low, high))
    assert bpd["published"] == 6.718
    assert bpd["difference"] == pytest.approx(np.mean(values) - 6.718)
    assert bpd["monte_carlo_error"] == pytest.approx(0.002 / math.sqrt(3))
    assert bpd["closed_form"] == pytest.approx(6.7)
    assert (bpd["split"], bpd["images"], bpd["samples"]) == ("test", "360", "16")
    assert (bpd["epochs"], bpd["configurations"], bpd["status"]) == ("20", 6, "complete")
    mse = row(frame, metric="mse_sampled_clamped")
    assert (mse["measured"], mse["published"]) == (pytest.approx(3.1), 3.011)
    assert math.isnan(row(frame, metric="mse_sampled")["published"])
    assert row(frame, metric="mse_sampled")["closed_form"] == pytest.approx(3.67)
    assert row(frame, metric="mse_mean_decoded")["closed_form"] == pytest.approx(2.17)


def test_bernoulli_latents_have_no_closed_form(builder, make_context):
    cell = "mnist/fixed/silent-bernoulli"
    three_seeds(builder, cell, limit=LIMIT)
    context = make_context([cell])
    frame = tables.measurements(cells(builder.records, context), context, "fixed", ("bpd",))
    assert math.isnan(row(frame)["closed_form"])


def test_the_learnable_tables_have_factor_analysis_beside_the_measurements(builder, make_context):
    names = [f"digits/learnable/{method}" for method in ("reparameterization", "reinforce")]
    for name in names:
        three_seeds(builder, name, values=(2.1, 2.2, 2.3))
    context = make_context(names, factor_analysis={"digits/learnable": LIMIT})
    found = cells(builder.records, context)
    for metric, expected in (("bpd", 6.7), ("kl", 198.0)):
        frame = tables.measurements(found, context, "learnable", (metric,))
        assert row(frame, method="reparameterization")["closed_form"] == expected
        assert math.isnan(row(frame, method="reinforce")["closed_form"])  # a discrete code does not contain it
    laid_out = {table.name: table for table in layout(found, [], builder.records, context)}
    for name, text in (("table-3-bits-per-dimension", "6.700"), ("table-4-kl-divergence", "198.00")):
        frame = laid_out[name].parts[0].frame
        (line,) = frame[frame[("", "Estimator")] == "Factor analysis"].to_dict("records")
        assert line[("", "Posterior")] == "Continuous"
        assert line[("digits", "without SG")] == text
        assert any("Factor analysis: " in note for note in laid_out[name].notes)
    without = layout(found, [], builder.records, make_context(names))
    assert not any("Factor analysis" in printed.markdown(table) for table in without)


def test_an_importance_weighted_bound_is_shown_where_there_is_one(builder, make_context):
    names = [
        f"digits/{method}" for method in ("fixed/reinforce", "learnable/reinforce", "learnable/reparameterization")
    ]
    weighted = {
        "importance_samples": 500,
        "importance_weighted_bpd": 2.4444,
        "importance_weighted_mc_error": 0.003,
        "effective_samples": 20.0,
    }
    for name in names:
        builder.add(name)
    context = make_context(names)
    plain = [printed.markdown(table) for table in layout(cells(builder.records, context), [], [], context)]
    assert not any("mportance-weighted" in text for text in plain)
    for record in builder.records[:2]:
        record.evaluation["report"] |= weighted
    found = cells(builder.records, context)
    laid_out = {table.name: table for table in layout(found, [], builder.records, context)}
    for stem, name in (("table-2-fixed-variance", "reinforce"), ("table-3-bits-per-dimension", "reinforce")):
        bound = row(laid_out[stem].data, method=name, metric="importance_weighted_bpd")
        assert (bound["measured"], bound["monte_carlo_error"]) == (2.4444, 0.003)
        assert "2.444 ± 0.0030" in printed.markdown(laid_out[stem])
        assert any("the bound of 500 samples" in note for note in laid_out[stem].notes)
    assert "mportance-weighted" not in printed.markdown(laid_out["table-4-kl-divergence"])
    tree = tables.metrics(found, context)["digits"]
    assert tree["fixed"]["reinforce"]["importance_weighted_bpd"] == 2.4444
    assert "importance_weighted_bpd" not in tree["learnable"]["reparameterization"]


def test_every_row_names_preset_protocol_and_data(study):
    records, context = study
    found = cells(records, context)
    for frame in (
        tables.measurements(found, context, "fixed", tables.ALL_METRICS),
        tables.measurements(found, context, "learnable", ("bpd",)),
        tables.gradient_variance(found, context),
    ):
        assert set(frame["preset"]) == {"digits"}
        assert set(frame["protocol"]) == {"holdout"}
        assert set(frame["data_sha256"]) == {"0123456789ab"}
        assert set(frame["data_version"]) == {"1.0"}
    assert set(tables.grid(records, context)["preset"]) == {"digits"}


def test_a_cell_without_a_run_has_a_row_without_numbers(study):
    records, context = study
    frame = tables.measurements(cells(records, context), context, "learnable", ("kl",))
    missing = row(frame, method="gumbel-softmax+silent")
    assert missing["status"] == "not run"
    assert math.isnan(missing["measured"])
    assert missing["seeds"] == 0
    assert len(frame) == 8


def test_diverged_seeds_leave_the_mean_and_show(builder, make_context):
    cell = "digits/learnable/reinforce"
    builder.add(cell, seed=0, bpd=2.0)
    builder.add(cell, seed=1, diverged_epoch=17)
    builder.add(cell, seed=2, diverged_epoch=17)
    context = make_context([cell])
    result = row(tables.measurements(cells(builder.records, context), context, "learnable", ("bpd",)))
    assert (result["measured"], result["seeds"]) == (2.0, 1)
    assert math.isnan(result["low"])
    assert result["status"] == "diverged (2 of 3, epoch 17)"


def test_table_1_keeps_both_reductions_and_averages_seeds(builder, make_context):
    cell = "mnist/fixed/reparameterization"
    for seed, value in enumerate((1.0, 2.0, 6.0)):
        entry = {"epoch": 10, "estimators": {"reparameterization": {"batch_mean": value, "per_image_mean": 64 * value}}}
        builder.add(cell, seed=seed, gradient_variance=[entry | {"images": 64, "draws": 100}])
    silent = "mnist/fixed/silent-gaussian"
    builder.add(silent, gradient_variance=[])
    context = make_context([cell, silent])
    frame = tables.gradient_variance(cells(builder.records, context), context)
    measured = row(frame, method="reparameterization")
    assert (measured["batch_mean"], measured["per_image_mean"]) == (pytest.approx(3.0), pytest.approx(192.0))
    assert measured["batch_mean_sd"] == pytest.approx(np.std([1, 2, 6], ddof=1))
    assert (measured["epoch"], measured["seeds"], measured["images"], measured["draws"]) == (10, 3, "64", "100")
    unmeasured = row(frame, method="silent-gaussian")
    assert unmeasured["published"] == 0
    assert pd.isna(unmeasured["epoch"])
    assert math.isnan(unmeasured["batch_mean"])


def test_the_grid_has_every_point_and_marks_the_selected(study):
    records, context = study
    frame = tables.grid(records, context)
    # 12 cells ran, each with two points.
    assert len(frame) == 24
    assert frame.groupby(["experiment", "method"])["selected"].sum().eq(1).all()
    chosen = frame[frame["selected"]]
    assert set(chosen["point"]) == {"learning_rate=0.001"}
    best = frame.groupby(["experiment", "method"])["selection_bpd"].transform("min")
    assert (frame.loc[frame["selected"], "selection_bpd"] == best[frame["selected"]]).all()


def test_a_selection_marks_its_run_before_the_seeds_have_run(builder, make_context):
    cell = "digits/fixed/reinforce"
    chosen = builder.add(cell, ("baselines",), selected=False)
    builder.add(cell, ("baselines",), selected=False, learning_rate=1e-4)
    selections = {cell: {"status": "selected", "run": chosen.name, "point": {}, "configurations": 2, "bpd": 2.5}}
    frame = tables.grid(builder.records, make_context([cell], selections=selections))
    assert frame[frame["selected"]]["name"].tolist() == [chosen.name]


def test_a_grid_of_one_point_shows_its_declared_axes(builder, make_context):
    cell = "digits/learnable/reinforce+silent"
    builder.add(cell, ("guided",), selected=False)
    context = make_context([cell], grid_axes={cell: ("silent.annealing_rate", "silent.cutoff_epoch")})
    assert tables.grid(builder.records, context)["point"].tolist() == [
        "silent.annealing_rate=0.1, silent.cutoff_epoch=None"
    ]


def test_runs_have_one_row_each_whatever_rounds_ask_for_them(study):
    records, _ = study
    frame = tables.runs(records)
    assert len(frame) == len({record.name for record in records}) == 48
    shared = frame[frame["rounds"] == "baselines+seeds"]
    assert len(shared) == 10
    assert set(frame["setting.learning_rate"]) == {1e-3, 1e-4}
    assert set(frame["setting.betas"]) == {"0.9, 0.999"}
    assert set(frame["setting.data.shape"]) == {"1x8x8"}
    assert "setting.silent.annealing_rate" in frame


def test_a_curve_is_of_the_selected_runs_and_ends_in_their_mean(study):
    records, _ = study
    curves = tables.curves(records)
    assert len(curves) == 12
    cell = "digits/learnable/reinforce"
    frame = curves[cell]
    assert list(frame.columns) == ["epoch", "seed_0", "seed_1", "seed_2", "selection_bpd"]
    runs = [run for run in records if run.cell == cell and run.round == "seeds"]
    lines = [(run.folder / "curve.jsonl").read_text().splitlines() for run in sorted(runs, key=lambda run: run.seed)]
    seeds = [[json.loads(line)["selection_bpd"] for line in each] for each in lines]
    assert frame[["seed_0", "seed_1", "seed_2"]].T.to_numpy().tolist() == seeds
    assert frame["selection_bpd"].tolist() == pytest.approx(list(map(statistics.fmean, zip(*seeds, strict=True))))
    assert frame["epoch"].tolist() == list(range(1, 21))


def test_a_curve_has_the_evaluated_epochs_and_loses_a_diverged_seed(builder):
    cell = "digits/learnable/reinforce"
    runs = [
        builder.add(cell, seed=0, bpd=2.0, epochs=4),
        builder.add(cell, seed=1, bpd=3.0, epochs=4, diverged_epoch=3),
    ]
    for run in runs:
        run.curve.loc[run.curve["epoch"] == 1, "selection_bpd"] = math.nan
    frame = tables.curves(builder.records)[cell]
    # By hand: 2 / epoch + 0.02 over each seed's bound, and nothing of the first epoch.
    assert frame["epoch"].tolist() == [2, 3, 4]
    assert frame["selection_bpd"].tolist() == pytest.approx([3.52, 2.02 + 2 / 3, 2.52])


def test_the_metrics_tree_is_keyed_by_names_alone(study):
    records, context = study
    tree = tables.metrics(cells(records, context), context)
    assert (tree["preset"], tree["protocol"]) == ("digits", "holdout")
    entry = tree["digits"]["fixed"]["reparameterization"]
    cell = "digits/fixed/reparameterization"
    runs = [record for record in records if record.cell == cell and record.round == "seeds"]
    values = [run.evaluation["report"]["bpd"] for run in runs]
    assert entry["bpd"] == pytest.approx(np.mean(values))
    assert entry["bpd_sd"] == pytest.approx(np.std(values, ddof=1))
    assert entry["kl"] == pytest.approx(22.0)
    assert (entry["mse"], entry["seeds"], entry["epochs"], entry["diverged"]) == (3.0, 3, 20, 0)
    assert entry["gradient_variance"]["20"] == pytest.approx({"batch_mean": 0.1, "per_image_mean": 6.4})
    assert tree["digits"]["learnable"]["gumbel-softmax+silent"] == {"seeds": 0, "diverged": 0}
    text = json.dumps(tree, allow_nan=False)
    assert not any(record.identity["id"] in text for record in records)


def test_an_empty_plan_has_empty_tables(make_context):
    context = make_context([])
    laid_out = layout([], claims([]), [], context)
    assert all(not table.parts for table in laid_out)
    assert tables.runs([]).empty
    assert not tables.curves([])


def test_texts_say_why_there_is_no_interval():
    assert interval(math.nan, math.nan, 1) == "one seed: none"
    assert interval(math.nan, math.nan, 0) == NOTHING
    assert interval(-1.0, 2.0, 3) == "[−1.000, 2.000]"
    assert number(0.5, sign=True) == "+0.500"
    assert number(-0.0001) == "0.000"
    assert monte_carlo(0.0) == "exact"
    assert monte_carlo(0.0021) == "0.0021"
    assert significant(0.0) == "0"
    assert significant(12345.6) == "12,300"
    assert significant(-2.25e6) == "−2,250,000"
    assert significant(3.21e12) == "3.21e+12"
    assert significant(999.6) == "1,000"


def test_markdown_escapes_what_would_break_a_row():
    part = printed.Part("Caption", pd.DataFrame({("", "A"): ["x|y"], ("G", "b"): ["line\nline"]}), 1)
    text = printed.markdown(printed.Table("t", "Title", ("A note.",), pd.DataFrame(), (part,)))
    assert "| A | G b |" in text
    assert "| x\\|y | line line |" in text


def test_the_log_linear_experiment_has_tables_of_its_own(builder, make_context):
    names = [f"digits/{experiment}/reparameterization" for experiment in ("fixed", "learnable", "log-linear")]
    for name, bpd in zip(names, (2.1, 2.2, 2.3), strict=True):
        for seed in range(3):
            builder.add(name, seed=seed, bpd=bpd + seed / 100)
    limits = {"digits/learnable": LIMIT, "digits/log-linear": LIMIT | {"bpd": 2.25}}
    context = make_context(names, factor_analysis=limits)
    laid_out = {t.name: t for t in layout(cells(builder.records, context), [], builder.records, context)}
    table = laid_out["log-linear-precision"]
    assert row(table.data, metric="bpd")["closed_form"] == 2.25
    (line,) = table.parts[0].frame.to_dict("records")
    assert line["BPD", "mean"] == "2.310"
    assert line["BPD", "closed form"] == "2.250"
    assert ("BPD", "published") not in line
    assert table.parts[0].caption == "digits, log-linear precision, linear decoder"
    assert table.title.startswith("Beyond the paper")
    variances = laid_out["log-linear-gradient-variance"]
    assert set(variances.data["experiment"]) == {"log-linear"}
    for name, other in laid_out.items():
        if not name.startswith("log-linear") and name != "grid":
            assert "log-linear" not in set(other.data.get("experiment", []))
    without = make_context(names[:2])
    assert not any("log-linear" in t.name for t in layout(cells([], without), [], [], without))


def test_what_is_beyond_the_paper_stands_below_it_and_says_so(builder, make_context):
    endings = ("", "+silent", "+sampled")
    names = [f"mnist/learnable/{estimator}{end}" for estimator in ("reinforce", "rloo") for end in endings]
    names += [f"mnist/fixed/{name}" for name in ("reinforce", "rloo")]
    for index, name in enumerate(names):
        for seed in range(3):
            builder.add(name, seed=seed, bpd=2 + index / 10)
    context = make_context(names)
    found = cells(builder.records, context)
    laid_out = {t.name: t for t in layout(found, claims(found), builder.records, context)}
    papers, beyond, *details = laid_out["table-3-bits-per-dimension"].parts
    (line,) = papers.frame.to_dict("records")
    columns = ("without SG", "with SG", "with sampled guide (beyond the paper)")
    assert [line["mnist", column][:5] for column in columns] == ["2.000", "2.100", "2.200"]
    assert line["mnist", "published with SG"] == "2.94"
    assert beyond.caption.startswith("Beyond the paper: ")
    (line,) = beyond.frame.to_dict("records")
    assert line["", "Estimator"] == "RLOO"
    assert [line["mnist", column][:5] for column in columns] == ["2.300", "2.400", "2.500"]
    assert not any("published" in "".join(name) for name in beyond.frame.columns)
    assert [part.frame["Method"].tolist() for part in details] == [
        ["REINFORCE", "REINFORCE + SG"],
        ["REINFORCE + sampled guide", "RLOO", "RLOO + SG", "RLOO + sampled guide"],
    ]
    assert ["beyond the paper" in part.caption for part in details] == [False, True]
    for name in ("table-1-gradient-variance", "table-2-fixed-variance"):
        parts = [part for part in laid_out[name].parts if "fixed variance" in part.caption]
        assert [part.frame["", "Method"].unique().tolist() for part in parts] == [["REINFORCE"], ["RLOO"]]
        assert ["beyond the paper" in part.caption for part in parts] == [False, True]
    ours = [part for part in laid_out["claims"].parts if "beyond the paper" in part.caption]
    orderings = ["REINFORCE + SG < REINFORCE + sampled guide", "RLOO + SG < RLOO + sampled guide"]
    assert [part.frame["Ordering"].tolist() for part in ours] == [orderings]
    # The numbers say it as well.
    for table in (laid_out["table-2-fixed-variance"], laid_out["table-3-bits-per-dimension"]):
        by_method = table.data.groupby("method")["beyond_paper"].all()
        assert {name for name, marked in by_method.items() if not marked} <= {"reinforce", "reinforce+silent"}


@pytest.mark.parametrize(("experiment", "words"), [("fixed", "the reported decoder itself"), ("learnable", "a guide")])
def test_whose_silent_baseline_it_is_is_said(builder, make_context, experiment, words):
    names = [f"digits/{experiment}/{name}" for name in ("reinforce-silent-baseline", "reinforce")]
    name = {"fixed": "table-2-fixed-variance", "learnable": "table-3-bits-per-dimension"}[experiment]
    for cell in names:
        builder.add(cell)
    for asked in (names, names[1:]):
        found = cells([record for record in builder.records if record.cell in asked], make_context(asked))
        (table,) = [t for t in layout(found, [], [], make_context(asked)) if t.name == name]
        assert any(words in note for note in table.notes if note.startswith("Silent baselines")) == (asked == names)
