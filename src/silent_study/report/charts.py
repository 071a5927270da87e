"""Small charts that the page draws itself: learning curves in the page's own colours, a kilobyte each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

SIDE = 1000
"""Length of both sides of a chart's square of coordinates."""

# Before this share of the values, those of the first epochs would flatten everything that differs later.
_SHOWN = 0.97


@dataclass(frozen=True)
class Look:
    """How a line is drawn.

    Attributes:
        role: ``own`` for what a chart is about, else ``other``.
        colour: That of the estimator in the figures; empty for the page's own two.
        dashes: Lengths of strokes and gaps in widths of the line; none is solid.
    """

    role: str
    colour: str = ""
    dashes: tuple[float, ...] = ()

    @property
    def style(self) -> str:
        """CSS of what its role leaves open."""
        dashes = " ".join(f"{2 * length:g}" for length in self.dashes) or "none"
        return f"stroke: {self.colour}; stroke-dasharray: {dashes}" if self.colour else ""


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: What it is, for the legend.
        points: Rows of x and y.
    """

    label: str
    look: Look
    points: pd.DataFrame


@dataclass(frozen=True)
class Chart:
    """Lines in a square of ``SIDE`` by ``SIDE``, y downwards.

    Attributes:
        label: The chart in words, for people who cannot see it.
        x_ticks: Positions and texts below the chart.
        y_ticks: Positions and texts beside it.
        lines: Look of each line and its points as an SVG polyline has them.
        legend: Looks and labels of the lines, each once.
    """

    label: str
    x_ticks: tuple[tuple[int, str], ...]
    y_ticks: tuple[tuple[int, str], ...]
    lines: tuple[tuple[Look, str], ...]
    legend: tuple[tuple[Look, str], ...]


def thinned(curve: pd.DataFrame, column: str, count: int) -> pd.DataFrame:
    """At most ``count`` of the rows with a finite value, evenly spread, the first and the last among them."""
    finite = curve[np.isfinite(curve[column])]
    keep = np.unique(np.linspace(0, len(finite) - 1, min(len(finite), count)).round().astype(int))
    return finite.iloc[keep]


def chart(lines: Sequence[Line], title: str) -> Chart | None:
    """Lines as a chart; ``None`` where there is no point."""
    drawn = [line for line in lines if len(line.points)]
    if not drawn:
        return None
    values = pd.concat([line.points.set_axis(["x", "y"], axis=1) for line in drawn])
    left, right = float(values["x"].min()), float(values["x"].max())
    low, high = float(values["y"].min()), float(values["y"].quantile(_SHOWN))
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
        tuple((line.look, polyline(line.points)) for line in drawn),
        tuple(dict.fromkeys((line.look, line.label) for line in drawn)),
    )


def _ticks(low: float, high: float) -> list[float]:
    # Rounded, lest 0.30000000000000004 be printed.
    ticks = [round(float(tick), 10) for tick in MaxNLocator(4).tick_values(low, high)]
    return [tick for tick in ticks if low <= tick <= high]
