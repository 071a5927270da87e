"""Reconstructions as grids of images: Figures 2 to 5 of the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from silent_study.report.cells import Cell

# Legible on a light and on a dark ground alike.
GREY = "#808080"
_IMAGES_PER_ROW = 12
_INCHES = 6.0
_INCHES_PER_LETTER = 0.075
_GAP = 0.06

Array = NDArray[Any]


def reconstructions(cells: Sequence[Cell]) -> Figure | None:
    """Plot originals, reconstruction means and, if the variance is learned, normalised standard deviations.

    One seed of each method is shown: the first with reconstructions.
    """
    rows: list[tuple[str, Array, bool]] = []
    for cell in cells:
        arrays = next((found for run in cell.evaluated if (found := run.reconstructions()) is not None), None)
        if arrays is None:
            continue
        if not rows:
            rows.append(("Originals", arrays["originals"], False))
        rows.append((cell.method.label, arrays["means"], False))
        if "standard_deviations" in arrays:
            rows.append(("std. deviation", _normalised(arrays["standard_deviations"]), True))
    if not rows:
        return None
    strips = [_strip(images[:_IMAGES_PER_ROW]) for _, images, _ in rows]
    height, width = strips[0].shape[:2]
    margin = max(len(label) for label, _, _ in rows) * _INCHES_PER_LETTER
    figure = Figure(figsize=(margin + _INCHES, len(rows) * _INCHES * height / width * (1 + _GAP)))
    axes = figure.subplots(len(rows), 1, squeeze=False)
    figure.subplots_adjust(left=margin / (margin + _INCHES), right=1, top=1, bottom=0, hspace=_GAP)
    for axis, strip, (label, _, deviation) in zip(axes[:, 0], strips, rows, strict=True):
        grey = strip.shape[2] == 1
        colours = ("magma" if deviation else "gray") if grey else None
        image = strip[..., 0] if grey else strip
        axis.imshow(image, cmap=colours, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axis.set_axis_off()
        look = {"ha": "right", "va": "center", "color": GREY, "fontstyle": "italic" if deviation else "normal"}
        axis.text(-0.01, 0.5, label, transform=axis.transAxes, fontsize=8, **look)
    return figure


def _normalised(deviations: Array) -> Array:
    axes = tuple(range(1, deviations.ndim))
    low, high = deviations.min(axis=axes, keepdims=True), deviations.max(axis=axes, keepdims=True)
    normalised: Array = (deviations - low) / np.where(high > low, high - low, 1)
    return normalised


def _strip(images: Array) -> Array:
    """Place images ``[n, C, H, W]`` side by side, ``[H, n (W + 1) - 1, C or C + 1]``, with transparent gaps.

    The gaps are ``nan`` in grey images; colour images get a channel of opacity.
    """
    count, channels, height, width = images.shape
    shape = (height, count * (width + 1) - 1, channels + (channels > 1))
    strip = np.full(shape, math.nan if channels == 1 else 0.0)
    for index, image in enumerate(images):
        place = strip[:, index * (width + 1) : index * (width + 1) + width]
        place[..., :channels] = np.clip(image.transpose(1, 2, 0), 0, 1)
        if channels > 1:
            place[..., channels] = 1
    return strip
