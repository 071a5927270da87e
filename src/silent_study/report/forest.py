"""Forest plots of the orderings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from silent_study.report.cells import Context
from silent_study.report.claims import PRIMARY, VERDICTS, Claim, Comparison, headline
from silent_study.report.drawings import GREY, INK, Drawing, drawing, matplotlib_defaults
from silent_study.report.orderings import labels
from silent_study.report.printed import interval, number

BLUE, RED = "#1d66ae", "#e96b48"
MARKS: dict[str, dict[str, Any]] = {
    "good": {"color": BLUE, "marker": "o"},
    "bad": {"color": RED, "marker": "X"},
    "open": {"color": GREY, "marker": "o", "markerfacecolor": "none"},
}
"""Colour and marker of a mean by the kind of its verdict, a value of ``VERDICTS``."""
# Bits/dim within which the axis is linear.
_LINEAR = 0.1


def row(axes: Axes, height: float, found: Comparison, kind: str, ink: str = "black") -> None:
    """Draw a comparison: the pairs as ticks, the mean with its interval, the published difference as a diamond in ink.

    ``kind`` is that of its verdict, a key of ``MARKS``.
    """
    colour = MARKS[kind]["color"]
    difference, values = found.difference, list(found.differences.values())
    low, high = axes.get_xlim()
    axes.plot(values, [height - 0.3] * len(values), "|", color=colour, alpha=0.8, markersize=5)
    if low <= difference.mean <= high:
        axes.plot([difference.mean], [height], markersize=6 if kind == "bad" else 5, **MARKS[kind])
    else:
        axes.plot([low], [height], "<", color=colour, markersize=6, clip_on=False)
    if not math.isnan(difference.low):
        axes.plot([difference.low, difference.high], [height, height], color=colour)
    if not math.isnan(found.published_difference):
        axes.plot([found.published_difference], [height], "D", color=ink, fillstyle="none", markersize=6)


def forest(claims: Sequence[Claim], context: Context) -> Iterator[Drawing]:
    """Draw the paper's orderings in bits/dim that were measured, a row each."""
    found = [claim for claim in claims if claim.family == PRIMARY and claim.differences]
    if not found:
        return
    data = pd.DataFrame(
        {
            "dataset": claim.first.dataset,
            "experiment": claim.first.experiment,
            "first": claim.first.method.label,
            "second": claim.second.method.label,
            **{name: getattr(claim.difference, name) for name in ("mean", "low", "high", "n")},
            "published": claim.published_difference,
            "verdict": claim.verdict,
        }
        for claim in found
    )
    yield drawing(
        "forest",
        headline(claims),
        "Difference in bits/dim of each ordering, first minus second on equal seeds: every pair as a tick, the mean "
        "with its 95% interval, the published difference as a diamond. The axis is linear near zero, else logarithmic. "
        + "; ".join(f"{' minus '.join(labels(claim))}: {_text(claim)}" for claim in found),
        lambda width: _draw(found, context, width),
        data,
    )


def _text(claim: Claim) -> str:
    found = claim.difference
    ends = interval(found.low, found.high, found.n, sign=True, of="pair")
    return f"{number(found.mean, sign=True)} {ends}, {claim.verdict}"


@matplotlib_defaults()
def _draw(found: Sequence[Claim], context: Context, width: float) -> Figure:
    heights: list[float] = []
    for place, claim in enumerate(found):
        before = found[place - 1] if place else None
        other = not before or before.first.name.split("/")[:2] != claim.first.name.split("/")[:2]
        heights.append((heights[-1] + 1 if heights else 0) + other)
    wide = width > 5
    between = " − " if wide else "\n− "
    names = [between.join(labels(claim)) for claim in found]
    letters = max(len(part) for name in names for part in name.split("\n"))
    # Inches of a letter on average, and of the distance to the axis.
    left, right, line = (0.058 * letters + 0.1, 2.15, 0.2) if wide else (0.05 * letters + 0.1, 0.05, 0.27)
    tall = line * (heights[-1] + 1.3) + 0.5
    figure = Figure(figsize=(width, tall))
    axes = figure.add_axes((left / width, 0.45 / tall, (width - left - right) / width, (tall - 0.5) / tall))
    values = [value for claim in found for value in claim.differences.values()]
    values += [claim.published_difference for claim in found if not math.isnan(claim.published_difference)]
    most = 2 * max(map(abs, values))
    ends = [end for claim in found for end in (claim.difference.low, claim.difference.high) if not math.isnan(end)]
    values += [max(-most, min(most, end)) for end in ends]
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.6)
    ticks = [0.0, *(sign * size for size in ((0.1, 0.3, 1, 3) if wide else (0.1, 1)) for sign in (-1, 1))]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks], size=7)
    axes.set_xlim(min([*values, -_LINEAR]) * 1.3, max([*values, _LINEAR]) * 1.3)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    beside: Any = {"transform": axes.get_yaxis_transform(), "va": "center", "size": 7}
    for height, claim in zip(heights, found, strict=True):
        row(axes, height, claim, VERDICTS[claim.verdict], INK)
        if wide:
            axes.text(1.01, height, _text(claim), **beside)
        if height - 1 not in heights:
            group = context.group(claim.first.dataset, claim.first.experiment)
            axes.text(-left / (width - left - right), height - 1, group, **beside)
    axes.set_yticks(heights, names, size=7 if wide else 6)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(heights[-1] + 0.7, -0.6)
    axes.set_xlabel("difference in bits/dim; left of 0, the first is better", loc="right", size=7)
    mark = Line2D([], [], marker="D", color=INK, fillstyle="none", linestyle="")
    if any(not math.isnan(claim.published_difference) for claim in found):
        figure.legend([mark], ["published"], loc="lower left", fontsize=7, frameon=False)
    return figure
