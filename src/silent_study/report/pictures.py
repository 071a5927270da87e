"""Rows of images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from silent_study.report.cells import Cell, Context
from silent_study.report.drawings import GREY, INK, Drawing, drawing, matplotlib_defaults

Array = NDArray[Any]

SCALES = {"difference": "RdBu_r", "deviation": "magma"}
"""Colour map by kind of strip; images are shown as they are."""
_IMAGES = {6.9: 12, 3.3: 7}
# Inches beside and below the images.
_LABELS, _BELOW = 1.35, 0.55


@dataclass(frozen=True)
class Strip:
    """A row of images, ``[n, C, H, W]`` on the [0, 1] scale of pixels; differences and deviations have one channel.

    The kind is ``original``, ``mean``, ``difference`` (mean minus original), ``deviation``, ``samples``, or the latent
    unit of a traversal.
    """

    method: str  # label; empty for the originals
    kind: str
    images: Array
    limit: float = 1.0  # largest value of the colour scale, which all strips of a kind have

    def array(self, count: int) -> Array:
        """Return images side by side, a clear pixel between them, ``[H, count (W + 1) - 1, 4]``, as 8-bit colours."""
        shown = self.images[:count]
        if self.kind in SCALES:
            low = -self.limit if self.kind == "difference" else 0.0
            values = (shown[:, 0] - low) / (self.limit - low)
            coloured = mpl.colormaps[SCALES[self.kind]](np.clip(values, 0, 1))
        else:
            coloured = np.clip(np.broadcast_to(shown, (len(shown), 3, *shown.shape[2:])), 0, 1).transpose(0, 2, 3, 1)
            coloured = np.pad(coloured, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1)
        padded = np.pad(coloured, ((0, 0), (0, 0), (0, 1), (0, 0)))
        joined = np.concatenate(list(padded), axis=1)[:, :-1]
        return (255 * joined).round().astype(np.uint8)

    def webp(self, count: int = max(_IMAGES.values())) -> bytes:
        """Return images side by side as WebP, a pixel each; without loss where the data lie beside them."""
        buffer = io.BytesIO()
        compared = self.kind in ("original", "mean", *SCALES)
        Image.fromarray(self.array(count)).save(buffer, "WEBP", lossless=compared, quality=85, method=4)
        return buffer.getvalue()


def strips(cells: Sequence[Cell]) -> list[Strip]:
    """Return the originals, then means, differences and, if the variance is learned, deviations of each method.

    One seed of each method is shown: the first with reconstructions.
    """
    found: list[Strip] = []
    for cell in cells:
        arrays = next((kept for run in cell.evaluated if (kept := run.reconstructions()) is not None), None)
        if arrays is None:
            continue
        originals, means, label = arrays["originals"], arrays["means"], cell.method.label
        if not found:
            found.append(Strip("", "original", originals))
        found += [Strip(label, "mean", means), Strip(label, "difference", (means - originals).mean(1, keepdims=True))]
        if "standard_deviations" in arrays:
            found.append(Strip(label, "deviation", arrays["standard_deviations"].mean(1, keepdims=True)))
    limits = {
        kind: max((float(np.abs(strip.images).max()) for strip in found if strip.kind == kind), default=0.0) or 1.0
        for kind in SCALES
    }
    return [Strip(each.method, each.kind, each.images, limits.get(each.kind, 1.0)) for each in found]


def reconstructions(cells: Sequence[Cell], name: str, title: str) -> Iterator[Drawing]:
    """Draw the strips of all methods."""
    yield from _drawing(
        strips(cells),
        name,
        title,
        "First row: originals. Then for each method the mean of the reconstruction, its difference to the original "
        "and, where the variance is learned, its standard deviation. All differences have one colour scale, and all "
        "deviations.",
    )


def latents(cells: Sequence[Cell], context: Context, name: str, title: str) -> Iterator[Drawing]:
    """Draw samples from the prior of each method, then its active units in the order of their KL, each moved."""
    kept = {cell.method.label: context.latents[cell.name] for cell in cells if cell.name in context.latents}
    missing = ", ".join(label for label, arrays in kept.items() if arrays is None)
    found = []
    for label, arrays in kept.items():
        if arrays is not None:
            found.append(Strip(label, "samples", arrays["samples"] / 255))
            for unit, kl, images in zip(arrays["units"], arrays["kl"], arrays["traversals"], strict=True):
                found.append(Strip(label, f"unit {unit}: {kl:.2f} nats", images / 255))
    yield from _drawing(
        found,
        name,
        title,
        "For each method means decoded from samples of the prior; then its active units, that with the largest KL "
        "first, each moved through its prior, from the 2% to the 98% quantile or from class to class, while the others "
        "stay at a sample of the first image. A unit without effect shows the same image. One seed of each method."
        f"{f' Without weights, so not drawn: {missing}.' if missing else ''}",
    )


def _drawing(found: Sequence[Strip], name: str, title: str, description: str) -> Iterator[Drawing]:
    """Draw strips below each other, with the colour scales of differences and deviations."""
    if not found:
        return
    rows = [
        (strip.method, strip.kind, place, image.mean(), np.abs(image).max())
        for strip in found
        for place, image in enumerate(strip.images)
    ]
    data = pd.DataFrame(rows, columns=["method", "kind", "image", "mean", "largest"])
    yield drawing(name, title, description, partial(_draw, found), data, strips=found)


@matplotlib_defaults()
def _draw(found: Sequence[Strip], width: float) -> Figure:
    arrays = [strip.array(_IMAGES[width]) for strip in found]
    widest = max(array.shape[1] for array in arrays)
    arrays = [np.pad(array, ((0, 1), (0, widest - array.shape[1]), (0, 0))) for array in arrays]
    picture = np.concatenate(arrays)[:-1]
    scales = [kind for kind in SCALES if any(strip.kind == kind for strip in found)]
    below = _BELOW * bool(scales)
    tall = (width - _LABELS) * picture.shape[0] / picture.shape[1] + below
    figure = Figure(figsize=(width, tall))
    axes = figure.add_axes((_LABELS / width, below / tall, 1 - _LABELS / width, 1 - below / tall))
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set_axis_off()
    step = arrays[0].shape[0]
    for place, strip in enumerate(found):
        first = not place or strip.method != found[place - 1].method
        axes.text(
            -1.5,
            (place + 0.45) * step,
            strip.method if first and strip.method else strip.kind,
            size=6,
            ha="right",
            va="center",
            color=INK if first else GREY,
        )
    bottom = below / tall
    for place, kind in enumerate(scales):
        limit = next(strip.limit for strip in found if strip.kind == kind)
        norm = mpl.colors.Normalize(-limit if kind == "difference" else 0, limit)
        axis = figure.add_axes((0.3 + 0.36 * place, bottom * 0.62, 0.3, bottom * 0.18))
        bar = figure.colorbar(mpl.cm.ScalarMappable(norm, SCALES[kind]), cax=axis, orientation="horizontal")
        bar.set_label(kind, fontsize=6, labelpad=1)
        axis.tick_params(labelsize=6, pad=1)
    return figure
