"""What the figures hold, pixel and number."""

import io
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from silent_study.methods import METHODS
from silent_study.report import figures
from silent_study.report.image_grids import reconstructions
from silent_study.report.summary import cells


def shown(figure: Any, row: int) -> Any:
    """The array that a row of an image grid displays."""
    return figure.axes[row].images[0].get_array()


def test_a_grid_shows_the_originals_once_and_two_rows_per_method(study):
    records, context = study
    learnable = [cell for cell in cells(records, context) if cell.experiment == "learnable"]
    figure = reconstructions(learnable)
    assert figure is not None
    # Seven of the eight methods have run.
    assert len(figure.axes) == 1 + 2 * 7
    arrays = learnable[0].evaluated[0].reconstructions() or {}
    assert np.allclose(shown(figure, 0)[:, :8], arrays["originals"][0, 0])
    deviations = shown(figure, 2)[:, :8]
    assert (deviations.min(), deviations.max()) == (0, 1)


def test_colour_images_keep_their_channels(builder, make_context):
    cell = "cifar10/learnable/reinforce"
    builder.add(cell, data__shape=[3, 8, 8])
    (found,) = cells(builder.records, make_context([cell]))
    strip = shown(reconstructions([found]), 1)
    arrays = found.evaluated[0].reconstructions() or {}
    assert np.allclose(strip[:, 9:17, :3], arrays["means"][1].transpose(1, 2, 0))
    # The gap between two images is clear.
    assert np.all(strip[:, 8, 3] == 0)


def test_one_flat_deviation_does_not_divide_by_zero(builder, make_context):
    cell = "digits/learnable/reinforce"
    folder = builder.add(cell).folder
    flat = np.full((2, 1, 8, 8), 0.5, np.float32)
    np.savez(folder / "reconstructions.npz", originals=flat, means=flat, standard_deviations=flat)
    (found,) = cells(builder.records, make_context([cell]))
    assert np.nanmax(shown(reconstructions([found]), 2)) == 0


def test_drawings_are_named_by_data_set_and_experiment(study):
    records, context = study
    drawings = figures.draw(cells(records, context), context)
    assert len({drawing.name for drawing in drawings}) == len(drawings) == 8
    png = next(drawing for drawing in drawings if drawing.name.endswith(".png"))
    assert imread(io.BytesIO(png.data)).shape[2] == 4
    zeros = next(drawing for drawing in drawings if drawing.name == "digits-fixed-gradient-variance.svg")
    assert b"Zero up to rounding, not drawn: Silent (Gaussian), Silent (Bernoulli)" in zeros.data


@pytest.mark.parametrize("variance", [0.0, None])
def test_gradient_variances_of_nothing_but_zeros_can_be_drawn(builder, make_context, variance):
    cell = "digits/fixed/silent-gaussian"
    builder.add(cell, gradient_variance=[] if variance is None else None)
    context = make_context([cell])
    names = {drawing.name for drawing in figures.draw(cells(builder.records, context), context)}
    assert ("digits-fixed-gradient-variance.svg" in names) == (variance == 0.0)


def test_a_run_that_diverged_before_its_first_evaluation_has_no_curve(builder, make_context):
    cell = "digits/fixed/reinforce"
    builder.add(cell, diverged_epoch=1)
    assert figures.draw(cells(builder.records, make_context([cell])), make_context([cell])) == []


def test_any_number_of_methods_has_colours_of_its_own(builder, make_context):
    names = [f"digits/learnable/{name}" for name in METHODS["learnable"]]
    for name in names:
        builder.add(name, epochs=2)
    context = make_context(names)
    found = cells(builder.records, context)
    colours = figures._colours(found)
    assert len(set(colours.values())) == len(colours) == len({cell.method.estimator for cell in found})
    drawings = {drawing.name: drawing.data for drawing in figures.draw(found, context)}
    assert len(drawings) == 4
    assert b"with sampled guide" in drawings["digits-learnable-curves.svg"]
    assert b"REINFORCE, silent control + SG" in drawings["digits-learnable-gradient-variance.svg"]
    # With as many as the paper has, the colours are those that the colour-blind can tell apart.
    few = [cell for cell in found if not cell.method.beyond]
    assert set(figures._colours(few).values()) <= set(figures._PALETTE)
