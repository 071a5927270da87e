"""What the figures show, pixel and number."""

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from silent_study.methods import METHODS
from silent_study.report import figures
from silent_study.report.image_grids import reconstructions


def shown(figure: Any, row: int) -> Any:
    """The array that a row of an image grid displays."""
    return figure.axes[row].images[0].get_array()


def drawn(study):
    return {drawing.name: drawing.data for drawing in figures.draw(study.cells, study.context)}


def test_a_grid_shows_the_originals_once_and_two_rows_per_method(whole):
    learnable = [cell for cell in whole.cells if cell.experiment == "learnable"]
    figure = reconstructions(learnable)
    assert figure is not None
    # Seven of the eight methods have run.
    assert len(figure.axes) == 1 + 2 * 7
    arrays = learnable[0].evaluated[0].reconstructions() or {}
    assert np.allclose(shown(figure, 0)[:, :8], arrays["originals"][0, 0])
    deviations = shown(figure, 2)[:, :8]
    assert (deviations.min(), deviations.max()) == (0, 1)


def test_colour_images_keep_their_channels(study):
    run = study.add("cifar10/learnable/reinforce", data__shape=[3, 8, 8])
    strip = shown(reconstructions(study.cells), 1)
    means = (run.reconstructions() or {})["means"]
    assert np.allclose(strip[:, 9:17, :3], means[1].transpose(1, 2, 0))
    # The gap between two images is clear.
    assert np.all(strip[:, 8, 3] == 0)


def test_one_flat_deviation_does_not_divide_by_zero(study):
    folder = study.add("digits/learnable/reinforce").folder
    flat = np.full((2, 1, 8, 8), 0.5, np.float32)
    np.savez(folder / "reconstructions.npz", originals=flat, means=flat, standard_deviations=flat)
    assert np.nanmax(shown(reconstructions(study.cells), 2)) == 0


def test_drawings_are_named_by_data_set_and_experiment(whole):
    drawings = drawn(whole)
    assert len(drawings) == 8
    png = next(data for name, data in drawings.items() if name.endswith(".png"))
    assert imread(io.BytesIO(png)).shape[2] == 4
    zeros = drawings["digits-fixed-gradient-variance.svg"]
    assert b"Zero up to rounding, not drawn: Silent (Gaussian), Silent (Bernoulli)" in zeros


@pytest.mark.parametrize("variance", [0.0, None])
def test_gradient_variances_of_nothing_but_zeros_can_be_drawn(study, variance):
    study.add("digits/fixed/silent-gaussian", gradient_variance=[] if variance is None else None)
    assert ("digits-fixed-gradient-variance.svg" in drawn(study)) == (variance == 0.0)


def test_a_run_that_diverged_before_its_first_evaluation_has_no_curve(study):
    study.add("digits/fixed/reinforce", diverged_epoch=1)
    assert drawn(study) == {}


def test_any_number_of_methods_has_colours_of_its_own(study):
    for name in METHODS["learnable"]:
        study.add(f"digits/learnable/{name}", epochs=2)
    colours = figures._colours(study.cells)
    assert len(set(colours.values())) == len(colours) == len({cell.method.estimator_label for cell in study.cells})
    drawings = drawn(study)
    assert len(drawings) == 4
    assert b"with sampled guide" in drawings["digits-learnable-curves.svg"]
    assert b"REINFORCE, silent control + SG" in drawings["digits-learnable-gradient-variance.svg"]
    # With as many as the paper has, the colours are those that the colour-blind can tell apart.
    few = [cell for cell in study.cells if not cell.method.beyond]
    assert set(figures._colours(few).values()) <= set(figures._PALETTE)


def test_the_users_matplotlibrc_changes_no_byte(study, tmp_path, monkeypatch):
    study.add("digits/fixed/reinforce")
    study.gather(tmp_path / "ours")
    script = f"""
import matplotlib
assert matplotlib.rcParams["text.usetex"]
from pathlib import Path
from tests.report.conftest import Study, record_of
study = Study(Path({str(study.store)!r}), [record_of(Path({str(study.records[0].folder)!r}), "seeds")])
study.gather(Path({str(tmp_path / "theirs")!r}))
assert matplotlib.rcParams["text.usetex"]
"""
    foreign = "text.usetex: True\nfont.size: 30\naxes.autolimit_mode: round_numbers\nlines.linewidth: 9\n"
    (tmp_path / "matplotlibrc").write_text(foreign)
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    subprocess.run([sys.executable, "-c", script], check=True)
    written = [path for path in (tmp_path / "ours").rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".png", ".svg", ".html"}
    for path in written:
        assert path.read_bytes() == (tmp_path / "theirs" / path.relative_to(tmp_path / "ours")).read_bytes(), path.name
