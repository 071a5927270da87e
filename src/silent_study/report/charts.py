"""Small charts that the page draws itself: learning curves in the page's own colours, a kilobyte each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

SIDE = 1000
"""Length of both sides of a chart's square of coordinates."""

# Quantile of the values at which an axis ends: the high values of the first epochs would hide later differences.
SHOWN = 0.97


@contextmanager
def matplotlib_defaults(settings: Any) -> Iterator[None]:
    """Context manager and decorator: matplotlib's defaults with some settings, whatever the user's matplotlibrc has."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


class Style(NamedTuple):
    """How a line is drawn: ``own`` for the chart's subject, else ``other``; and its CSS, empty for the page's own."""

    role: str
    css: str = ""


class Line(NamedTuple):
    """A line of a chart with its label in the legend; ``points`` has rows of x and y."""

    label: str
    style: Style
    points: pd.DataFrame


@dataclass(frozen=True)
class Chart:
    """Lines in a square of ``SIDE`` by ``SIDE``, y downwards.

    Attributes:
        label: The chart in words, for people who cannot see it.
        x_ticks: Positions and texts below the chart.
        y_ticks: Positions and texts beside it.
        lines: Style of each line and its points as an SVG polyline.
        legend: Styles and labels of the lines, each once.
    """

    label: str
    x_ticks: tuple[tuple[int, str], ...]
    y_ticks: tuple[tuple[int, str], ...]
    lines: tuple[tuple[Style, str], ...]
    legend: tuple[tuple[Style, str], ...]


def thinned(curve: pd.DataFrame, column: str, count: int) -> pd.DataFrame:
    """Return epochs and a column, at most ``count`` rows with a finite value, evenly spread, both ends among them."""
    finite = curve.loc[np.isfinite(curve[column]), ["epoch", column]]
    keep = np.unique(np.linspace(0, len(finite) - 1, min(len(finite), count)).round().astype(int))
    return finite.iloc[keep]


def chart(lines: Sequence[Line], title: str) -> Chart | None:
    """Return lines as a chart; ``None`` without any point."""
    drawn = [line for line in lines if len(line.points)]
    if not drawn:
        return None
    values = pd.concat([line.points.set_axis(["x", "y"], axis=1) for line in drawn])
    left, right = float(values["x"].min()), float(values["x"].max())
    low, high = float(values["y"].min()), float(values["y"].quantile(SHOWN))
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def across(x: float) -> int:
        return round(SIDE * (x - left) / (right - left)) if right > left else SIDE // 2

    def down(y: float) -> int:
        return round(SIDE * (high - y) / (high - low))

    def polyline(points: pd.DataFrame) -> str:
        return " ".join(f"{across(x)},{down(y)}" for x, y in points.itertuples(index=False))

    first, last = drawn[0].points.iloc[0], drawn[0].points.iloc[-1]
    return Chart(
        f"{title}: {drawn[0].label} goes from {first.iloc[1]:.3f} in epoch {first.iloc[0]:.0f} "
        f"to {last.iloc[1]:.3f} in epoch {last.iloc[0]:.0f}",
        tuple((across(x), f"{x:g}") for x in _ticks(left, right)),
        tuple((down(y), f"{y:g}") for y in _ticks(low, high)),
        tuple((line.style, polyline(line.points)) for line in drawn),
        tuple(dict.fromkeys((line.style, line.label) for line in drawn)),
    )


def _ticks(low: float, high: float) -> list[float]:
    # Without rounding, a tick would be printed as 0.30000000000000004.
    ticks = [round(float(tick), 10) for tick in MaxNLocator(4).tick_values(low, high)]
    return [tick for tick in ticks if low <= tick <= high]
