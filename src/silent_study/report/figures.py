"""The figures, drawn the same to the byte for the same runs.

Image grids are PNG, plots are SVG. Both are transparent and legible on a light and on a dark page: image grids are
labelled in a middle grey, and a plot's axes and letters follow the reader's colour scheme.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from silent_study.methods import GUIDANCE
from silent_study.paper import published
from silent_study.report import tables
from silent_study.report.cells import Cell, unequal_steps
from silent_study.report.charts import SHOWN, matplotlib_defaults, thinned
from silent_study.report.context import Context
from silent_study.report.image_grids import GREY, reconstructions
from silent_study.report.printed import group_name
from silent_study.settings import EXPERIMENTS

# A colour that no palette has: the saved SVG has currentColor in its place.
_INK = "#010203"
_STYLE = (
    "<style>svg{color:#1f2328}text{font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#d5d9e0}}</style>"
)
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "silent-gradients",
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "figure.constrained_layout.h_pad": 0.06,
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#80808050",
    "grid.linewidth": 0.6,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), _INK
    ),
}
# The first six are near Okabe and Ito's colours, which colour-blind readers can distinguish, with a lightness for light
# and dark backgrounds; the others are distinct for other readers alone.
_PALETTE = ("#2b87d1", "#d9651a", "#12a67c", "#cc79a7", "#b98500", "#7a6ff0")
_MORE = ("#d6404d", "#6f9e2f", "#12a5b8", "#96705a", "#c44fd0", "#7f8b96")
_DASHES: dict[str, Any] = {GUIDANCE[1]: "", GUIDANCE[0]: (3, 1.5), GUIDANCE[2]: (1, 1)}
_MARKERS = {GUIDANCE[1]: "o", GUIDANCE[0]: "X", GUIDANCE[2]: "^"}
_POINTS_PER_CURVE = 120
# Below this share of the largest, a variance is rounding of an exact gradient and would only stretch the axis.
_NUMERICAL_ZERO = 1e-10
# A bias with a higher z-score is not noise.
_BIAS_SEEN = 4
_RECONSTRUCTED = "First row: originals. Then for each method the mean of the reconstruction"
_DEVIATIONS = (
    f"{_RECONSTRUCTED} and below it the standard deviation, each image's scaled to the full range, as in the paper's "
    "Figures 3 to 5."
)


@dataclass(frozen=True)
class Drawing:
    """A rendered figure.

    Attributes:
        name: File name with its ending.
        description: What it shows, for people who cannot see it.
        data: The file's bytes.
    """

    name: str
    title: str
    description: str
    data: bytes


@matplotlib_defaults(_SETTINGS)
def draw(cells: Sequence[Cell], context: Context) -> list[Drawing]:
    """Return the drawings of each data set and experiment: reconstructions, curves, gradient variances, BPD against KL.

    A drawing with nothing to show is left out.
    """
    drawings = []
    for (dataset, experiment), members in _groups(cells):
        colours = _colours(members)
        has_published = any(map(_published_pair, members))
        drawn = (
            (
                "reconstructions.png",
                "Reconstructions",
                f"{_RECONSTRUCTED}, as in the paper's Figure 2."
                if EXPERIMENTS[experiment].constant_variance
                else _DEVIATIONS,
                reconstructions(members),
            ),
            (
                "curves.svg",
                "Learning curves",
                "Bits per dimension on the selection split at every evaluation; mean over seeds, the band from the "
                "lowest to the highest.",
                learning_curves(members, colours),
            ),
            (
                "gradient-variance.svg",
                "Gradient variance",
                "Variance of the encoder's gradient under resampling of the code by epoch, logarithmic; each point is "
                "the mean over seeds.",
                gradient_variance(members, context, colours),
            ),
            (
                "bpd-kl.svg",
                "Bits per dimension against KL",
                "Each mark is one seed's reported BPD and KL divergence"
                f"{'; grey outlines are the published values' if has_published else ''}.{_lengths(members)}",
                bpd_against_kl(members, colours),
            ),
        )
        group = group_name(dataset, experiment, context)
        for ending, title, description, figure in drawn:
            if figure is not None:
                data = _bytes(figure, ending)
                drawings.append(Drawing(f"{dataset}-{experiment}-{ending}", f"{title}, {group}", description, data))
    return drawings


def cell_styles(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the CSS of each cell's curves by its name, with the colours and dashes of the figures."""
    styles = {}
    for _, members in _groups(cells):
        colours = _colours(members)
        for cell in members:
            dashes = " ".join(f"{2 * length:g}" for length in _DASHES[cell.method.guidance]) or "none"
            styles[cell.name] = f"stroke: {colours[_estimator(cell)]}; stroke-dasharray: {dashes}"
    return styles


def _groups(cells: Sequence[Cell]) -> Iterator[tuple[tuple[str, str], list[Cell]]]:
    for group, members in groupby(cells, key=lambda cell: (cell.dataset, cell.experiment)):
        yield group, list(members)


def learning_curves(cells: Sequence[Cell], colours: dict[str, str]) -> Figure | None:
    """Plot BPD on the selection split by epoch: a colour per estimator, solid with and dashed without SG."""
    frames = [
        thinned(run.curve, "selection_bpd", _POINTS_PER_CURVE).assign(**_aesthetics(cell))
        for cell in cells
        for run in cell.runs
    ]
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if data.empty:
        return None

    band: Any = {"errorbar": ("pi", 100), "err_kws": {"alpha": 0.15, "linewidth": 0}, "linewidth": 1.4}
    plot = partial(sns.lineplot, x="epoch", y="selection_bpd", dashes=_DASHES, **band)
    figure, axes = _panels(data, colours, plot, ("epoch", "BPD (selection split)"), sharey=True)
    low, high = data["selection_bpd"].min(), data["selection_bpd"].quantile(SHOWN)
    if high > low:
        margin = 0.05 * (high - low)
        next(iter(axes.values())).set_ylim(low - margin, high + margin)
    return figure


def gradient_variance(cells: Sequence[Cell], context: Context, colours: dict[str, str]) -> Figure | None:
    """Plot gradient variance by epoch on a logarithmic axis, one panel per reduction; zeros are listed instead."""
    data = tables.gradient_variance(cells, context)
    data = data[data["seeds"] > 0] if len(data) else data
    if data.empty:
        return None
    labels = len(data.drop_duplicates(["method", "estimated_with"]))
    figure, axes = _two_panels(_height(labels))
    named = {cell.method.name: cell for cell in cells}
    zeros: dict[str, None] = {}
    for axis, reduction in zip(axes, tables.REDUCTIONS, strict=True):
        floor = data[reduction].max() * _NUMERICAL_ZERO
        for (name, estimator), part in data.groupby(["method", "estimated_with"], sort=False):
            cell = named[str(name)]
            visible = part[part[reduction] > floor]
            if visible.empty:
                zeros[cell.method.label] = None
                continue
            look: Any = {
                "color": colours[_estimator(cell)],
                "dashes": _DASHES[cell.method.guidance] or (None, None),
                "marker": _MARKERS[cell.method.guidance],
            }
            label = cell.method.label_with(str(estimator))
            axis.plot(visible["epoch"].astype(int), visible[reduction], markersize=4, label=label, **look)
        if axis.lines:
            axis.set_yscale("log")
        axis.set(xlabel="epoch", title=reduction.replace("_", " ").replace("per image", "per-image"))
    axes[0].set_ylabel("gradient variance (nats²)")
    _finish(figure, axes[0], zeros, "Zero up to rounding")
    return figure


@matplotlib_defaults(_SETTINGS)
def estimators_along_training(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Return variance and bias by epoch of the points of a ``Comparison`` as an SVG; zeros are listed instead."""
    data = pd.DataFrame(list(points))
    kinds: Any = ((None, None), (3, 1.5), (1, 1))
    figure, (variance, bias) = _two_panels(2.9)
    zeros = []
    for place, (name, part) in enumerate(data.groupby("estimator", sort=False)):
        colour, dashes = _PALETTE[place % len(_PALETTE)], kinds[place // len(_PALETTE) % len(kinds)]
        look = {"color": colour, "dashes": dashes, "marker": "o", "markersize": 4, "label": name}
        if (part["per_image_mean"] > 0).all():
            variance.plot(part["epoch"], part["per_image_mean"], **look)
        else:
            zeros.append(str(name))
        bias.plot(part["epoch"], part["bias_z"], **look)
    bias.axhline(_BIAS_SEEN, color=GREY, linewidth=0.8)
    if variance.lines:
        variance.set_yscale("log")
    bias.set_yscale("symlog", linthresh=_BIAS_SEEN)
    ends = data["bias_z"].min(), data["bias_z"].max()
    ticks = [sign * size for size in (_BIAS_SEEN, *(10**power for power in range(1, 9))) for sign in (-1, 1)]
    shown = sorted({0, _BIAS_SEEN, *(tick for tick in ticks if ends[0] <= tick <= ends[1])})
    bias.set_yticks(shown, [f"{tick:g}" for tick in shown])
    variance.set(xlabel="epoch", ylabel="gradient variance (nats²)", title="per-image mean")
    bias.set(xlabel="epoch", ylabel="z", title="bias; seen above the line")
    _finish(figure, bias, zeros, "Zero")
    return _bytes(figure, "svg")


def bpd_against_kl(cells: Sequence[Cell], colours: dict[str, str]) -> Figure | None:
    """Plot reported BPD against KL, one mark per seed, with the published pairs as grey outlines."""
    rows = []
    for cell in cells:
        bpd, kl = cell.values("bpd"), cell.values("kl")
        rows += [{"bpd": bpd[seed], "kl": kl[seed], **_aesthetics(cell)} for seed in bpd.keys() & kl.keys()]
    if not rows:
        return None

    data = pd.DataFrame(rows).sort_values(["space", "estimator", "guidance", "kl"], ignore_index=True)
    plot = partial(sns.scatterplot, x="kl", y="bpd", markers=_MARKERS, s=36, linewidth=0, alpha=0.85)
    figure, axes = _panels(data, colours, plot, ("KL (nats per image)", "BPD"))
    for cell in cells:
        if (pair := _published_pair(cell)) is not None and cell.method.space in axes:
            marker = "o" if cell.method.silent else "X"
            axes[cell.method.space].plot(*pair, marker, mec=GREY, mfc="none", ms=7, mew=1)
    return figure


def _lengths(cells: Sequence[Cell]) -> str:
    """Return a sentence on methods that were trained for different numbers of steps; empty if all are equal."""
    steps = unequal_steps(cells)
    named = [f"{cell.method.label} {steps[cell.name]}" for cell in cells if steps[cell.name]]
    return f" Trained for different numbers of steps: {', '.join(named)}." if named else ""


def _published_pair(cell: Cell) -> tuple[float, float] | None:
    """Return KL and BPD of the paper; ``None`` if it lacks one."""
    kl, bpd = published(cell.name, "kl"), published(cell.name, "bpd")
    return None if kl is None or bpd is None else (kl, bpd)


def _panels(
    data: pd.DataFrame, colours: dict[str, str], plot: Callable[..., Any], labels: tuple[str, str], sharey: bool = False
) -> tuple[Figure, dict[str, Axes]]:
    """Draw a panel for each kind of posterior, which names it, and one legend beside them."""
    estimators = [name for name in colours if (data["estimator"] == name).any()]
    guidance = [name for name in _DASHES if (data["guidance"] == name).any()]
    orders = {"hue_order": estimators, "style_order": guidance}
    spaces = [space for space in ("Continuous", "Discrete") if (data["space"] == space).any()]
    figure = Figure(figsize=(3.0 * len(spaces) + 1.4, _height(len(estimators + guidance) + 2)), layout="constrained")
    axes = dict(zip(spaces, figure.subplots(1, len(spaces), sharey=sharey, squeeze=False)[0], strict=True))
    for space, axis in axes.items():
        part = data[data["space"] == space]
        plot(part, hue="estimator", style="guidance", palette=colours, ax=axis, **orders)
        axis.set(title=space, xlabel=labels[0], ylabel="" if sharey and space != spaces[0] else labels[1])
        handles, names = axis.get_legend_handles_labels()
        axis.get_legend().remove()
    for handle in handles[-len(guidance) :]:
        handle.set(color=_INK, markerfacecolor=_INK)
    figure.legend(handles, names, loc="outside right upper")
    return figure, axes


def _two_panels(height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.4, height), layout="constrained")
    return figure, figure.subplots(1, 2)


def _finish(figure: Figure, labelled: Axes, zeros: Collection[str], what: str) -> None:
    """Add the legend of a panel and the names of the lines that were not drawn."""
    handles, labels = labelled.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper")
    if zeros:
        figure.supxlabel(f"{what}, not drawn: {', '.join(zeros)}", fontsize=8, color=_INK)


def _height(labels: int) -> float:
    """Return the inches that a legend of so many lines needs, and a plot at least."""
    return max(2.9, 0.4 + 0.19 * labels)


def _aesthetics(cell: Cell) -> dict[str, str]:
    return {"estimator": _estimator(cell), "guidance": cell.method.guidance, "space": cell.method.space}


def _estimator(cell: Cell) -> str:
    return "None (SG alone)" if cell.method.sampled_estimator == "none" else cell.method.estimator_label


def _colours(cells: Sequence[Cell]) -> dict[str, str]:
    estimators = dict.fromkeys(_estimator(cell) for cell in sorted(cells, key=lambda cell: cell.method.rank))
    more = sns.husl_palette(max(0, len(estimators) - 12), s=0.8, l=0.5).as_hex()
    return dict(zip(estimators, (*_PALETTE, *_MORE, *more), strict=False))


def _bytes(figure: Figure, ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending.endswith(".png"):
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode().replace(_INK, "currentColor")
    start = text.index(">", text.index("<svg")) + 1
    return (text[:start] + _STYLE + text[start:]).encode()
