"""What the figures show, pixel and number, and how they are exported."""

import io
import json
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from colorspacious import cspace_convert, deltaE
from PIL import Image
from scipy import stats

from silent_study.methods import METHODS
from silent_study.report import figures
from silent_study.report.drawings import INK, MORE, PALETTE
from silent_study.report.forest import BLUE, MARKS, RED, forest
from silent_study.report.pictures import strips
from silent_study.report.statistics import CONFIDENCE

LIMIT = {"bpd": 2.0, "kl": 20.0, "expected_squared_error": 3.0, "mean_decoded_squared_error": 2.0}


def drawn(study):
    return {drawing.name: drawing for drawing in figures.draw(study.cells, study.context)}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255


def test_reconstructions_are_the_originals_once_then_every_methods_strips(whole):
    learnable = [cell for cell in whole.cells if cell.experiment == "learnable"]
    found = strips(learnable)
    # Seven of the eight methods have run.
    assert [strip.kind for strip in found] == ["original", *["mean", "difference", "deviation"] * 7]
    arrays = learnable[0].evaluated[0].reconstructions() or {}
    assert np.allclose(pixels(found[0].webp())[:, :8, 0], arrays["originals"][0, 0], atol=1 / 255)
    assert np.allclose(found[2].images[:, 0], (arrays["means"] - arrays["originals"])[:, 0])
    # One scale for all of a kind: no difference is red and blue at its ends, the largest deviation is the lightest.
    assert len({strip.limit for strip in found if strip.kind == "difference"}) == 1
    assert found[3].limit == max(strip.images.max() for strip in found if strip.kind == "deviation")
    flat = pixels(type(found[2])("", "difference", np.zeros((1, 1, 2, 2)), 1.0).webp())
    assert np.allclose(flat, flat[0, 0])
    assert flat.min() > 0.9


def test_colour_images_keep_their_channels(study):
    run = study.add("cifar10/learnable/reinforce", data__shape=[3, 8, 8])
    means = (run.reconstructions() or {})["means"]
    content = strips(study.cells)[1].webp()
    assert np.allclose(pixels(content)[:, 9:17], means[1].transpose(1, 2, 0), atol=1 / 255)
    assert np.all(np.asarray(Image.open(io.BytesIO(content)))[:, 8, 3] == 0)


def test_flat_deviations_do_not_divide_by_zero(study):
    folder = study.add("digits/learnable/reinforce").folder
    flat = np.zeros((2, 1, 8, 8), np.float32)
    np.savez(folder / "reconstructions.npz", originals=flat, means=flat, standard_deviations=flat)
    assert all(np.isfinite(strip.array(2)).all() for strip in strips(study.cells))


def test_every_figure_has_files_for_papers_and_its_numbers(whole):
    drawings = {**drawn(whole), "forest": next(forest(list(whole.claims.values()), whole.context))}
    assert len(drawings) == 11
    for name, drawing in drawings.items():
        endings = {"svg", "pdf", "png"}
        expected = {f"{name}.{ending}" for ending in (*endings, "csv")} | {f"{name}-column.{e}" for e in ("svg", "pdf")}
        assert set(drawing.files) == expected
        for stem, inches in ((name, 6.9), (f"{name}-column", 3.3)):
            svg, pdf = drawing.files[f"{stem}.svg"].decode(), drawing.files[f"{stem}.pdf"]
            assert f'width="{inches}in"' in svg
            # Dark ink on white, whatever the reader's colour scheme; the page's copy follows it.
            assert INK in svg
            assert "prefers-color-scheme" not in svg
            (box,) = set(re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+)", pdf))
            assert float(box) == pytest.approx(72 * inches, abs=0.01)
            assert b"/FontFile" in pdf
        assert pixels(drawing.files[f"{name}.png"])[0, 0] == pytest.approx(1, abs=0.02)
        assert "currentColor" in drawing.embedded()
        assert "prefers-color-scheme" in drawing.embedded()
        assert INK not in drawing.embedded().replace(f"svg{{color:{INK}}}", "")
    assert "Zero up to rounding, not drawn: Silent (Gaussian), Silent (Bernoulli)" in (
        drawings["digits-fixed-gradient-variance"].description
    )


def test_a_band_is_the_interval_of_the_tables_and_seeds_are_the_runs(whole):
    cells = [cell for cell in whole.cells if cell.name == "digits/learnable/reinforce"]
    data = figures.curves(cells, whole.context).set_index("epoch")
    curves = [run.curve.set_index("epoch")["selection_bpd"] for run in cells[0].runs]
    for seed, curve in enumerate(curves):
        found = data[data["seed"] == seed]["bpd"]
        assert found.tolist() == pytest.approx(curve[found.index].tolist())
    mean = data[data["seed"].isna()]
    at = np.array([curve[mean.index] for curve in curves])
    low, high = stats.t.interval(CONFIDENCE, 2, at.mean(0), stats.sem(at))
    assert mean["bpd"].to_numpy() == pytest.approx(at.mean(0))
    assert mean["low"].to_numpy() == pytest.approx(low)
    # The highest tenth of the values is cut off, and ends of bands with it.
    cut = np.quantile(np.array(curves), 0.9)
    assert mean["high"].to_numpy() == pytest.approx(np.minimum(high, cut))
    assert (mean.index[0] > 1, mean.index[-1]) == (True, 20)


@pytest.mark.parametrize("limit", [None, LIMIT])
def test_curves_have_an_axis_above_the_closed_form_where_there_is_one(study, limit):
    study.add_seeds("digits/fixed/silent-gaussian", [2.5, 2.6], limit=limit)
    chart = drawn(study)["digits-fixed-curves"].chart or {}
    text = json.dumps(chart)
    assert (figures._ABOVE in text) == ("datum.limit" in text) == bool(limit)
    assert {row["limit"] for row in chart["data"]["values"]} == {limit and 2.0}


@pytest.mark.parametrize("variance", [0.0, None])
def test_gradient_variances_of_nothing_but_zeros_can_be_drawn(study, variance):
    study.add("digits/fixed/silent-gaussian", gradient_variance=[] if variance is None else None)
    assert ("digits-fixed-gradient-variance" in drawn(study)) == (variance == 0.0)


def test_a_run_that_diverged_before_its_first_evaluation_has_no_curve(study):
    study.add("digits/fixed/reinforce", diverged_epoch=1)
    assert drawn(study) == {}


def test_any_number_of_methods_has_colours_of_its_own(study):
    for name in METHODS["learnable"]:
        study.add(f"digits/learnable/{name}", epochs=2)
    colours = figures.colours(study.cells)
    estimators = {cell.method.estimator_label for cell in study.cells} - {"None"}
    assert len(set(colours.values())) == len(estimators) + 2  # silent alone with either posterior
    drawings = drawn(study)
    assert len(drawings) == 4
    assert "with sampled guide" not in json.dumps(drawings["digits-learnable-curves"].chart)
    assert "REINFORCE + sampled guide" in json.dumps(drawings["digits-learnable-curves"].chart)
    # With as many as the paper has, the colours are those that the colour-blind can tell apart.
    few = [cell for cell in study.cells if not cell.method.beyond]
    assert set(figures.colours(few).values()) <= set(PALETTE)


@pytest.mark.parametrize("kind", [None, "deuteranomaly", "protanomaly", "tritanomaly"])
def test_the_colour_blind_can_tell_the_colours_apart(kind):
    """By the simulation of Machado et al. (2009), at full severity; a difference of 2.3 is just noticeable."""

    def seen(colour):
        rgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        space = {"name": "sRGB1+CVD", "cvd_type": kind, "severity": 100}
        return np.clip(cspace_convert(rgb, space, "sRGB1"), 0, 1) if kind else rgb

    verdicts = [mark["color"] for mark in MARKS.values()]
    for palette, least in ((PALETTE, 30), (PALETTE + MORE, 12), (verdicts, 25)):
        pairs = combinations(map(seen, palette), 2)
        assert min(deltaE(*pair, input_space="sRGB1", uniform_space="CIELab") for pair in pairs) > least
    good, bad = (cspace_convert(seen(colour), "sRGB1", "CIELab")[0] for colour in (BLUE, RED))
    assert bad - good > 6
    assert len({(mark["marker"], mark.get("markerfacecolor")) for mark in MARKS.values()}) == len(MARKS)


def test_the_users_matplotlibrc_changes_no_byte(study, tmp_path, monkeypatch):
    study.add_seeds("digits/fixed/reinforce", (2.5, 2.6))
    study.add_seeds("digits/fixed/silent-bernoulli", (2.2, 2.3))
    study.gather(tmp_path / "ours")
    script = f"""
import matplotlib
assert matplotlib.rcParams["text.usetex"]
from pathlib import Path
from tests.report.conftest import Study, record_of
folders = {[str(record.folder) for record in study.records]!r}
study = Study(Path({str(study.store)!r}), [record_of(Path(folder), "seeds") for folder in folders])
study.gather(Path({str(tmp_path / "theirs")!r}))
assert matplotlib.rcParams["text.usetex"]
"""
    foreign = "text.usetex: True\nfont.size: 30\naxes.autolimit_mode: round_numbers\nlines.linewidth: 9\n"
    (tmp_path / "matplotlibrc").write_text(foreign)
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    subprocess.run([sys.executable, "-c", script], check=True)
    written = [path for path in (tmp_path / "ours").rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".png", ".svg", ".pdf", ".tex", ".html"}
    for path in written:
        assert path.read_bytes() == (tmp_path / "theirs" / path.relative_to(tmp_path / "ours")).read_bytes(), path.name
