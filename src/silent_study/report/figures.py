"""The figures, drawn the same to the byte for the same runs.

Image grids are PNG, plots are SVG. Both are transparent and legible on a light and on a dark page: image grids are
labelled in a middle grey, and a plot's ink follows the reader's colour scheme.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from silent_study.paper import published
from silent_study.report import tables
from silent_study.report.charts import thinned
from silent_study.report.context import Context
from silent_study.report.image_grids import GREY, reconstructions
from silent_study.report.summary import Cell
from silent_study.settings import EXPERIMENTS

# A colour that no palette has: the saved SVG says currentColor in its place.
_INK = "#010203"
_GRID = "#80808050"
_STYLE = (
    "<style>svg{color:#1f2328}text{font-family:system-ui,sans-serif}"
    "@media (prefers-color-scheme:dark){svg{color:#d5d9e0}}</style>"
)
_SETTINGS: Any = {
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
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), _INK
    ),
}
# Near Okabe and Ito's colours, which the colour-blind can tell apart, of a lightness that both grounds bear; then as
# many that others can.
_PALETTE = ("#2b87d1", "#d9651a", "#12a67c", "#cc79a7", "#b98500", "#7a6ff0")
_MORE = ("#d6404d", "#6f9e2f", "#12a5b8", "#96705a", "#c44fd0", "#7f8b96")
_DASHES: dict[str, Any] = {"with SG": "", "without SG": (3, 1.5), "with sampled guide": (1, 1)}
_MARKERS = {"with SG": "o", "without SG": "X", "with sampled guide": "^"}
_POINTS_PER_CURVE = 120
# Below this share of the largest, a variance is rounding of an exact gradient and would only stretch the axis.
_NUMERICAL_ZERO = 1e-10
# A bias whose z-score is higher is no accident.
_BIAS_SEEN = 4


@dataclass(frozen=True)
class Drawing:
    """A rendered figure.

    Attributes:
        name: File name with its ending.
        title: Title for people.
        description: What it shows, for people who cannot see it.
        data: The file's bytes.
    """

    name: str
    title: str
    description: str
    data: bytes


def draw(cells: Sequence[Cell], context: Context) -> list[Drawing]:
    """Every figure that the runs allow: reconstructions, curves, gradient variances, BPD against KL.

    Args:
        cells: Cells of the plan with the runs of their selected points.
        context: The plan.

    Returns:
        Up to four drawings for each data set and experiment; one without anything to show is left out.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.experiment), []).append(cell)
    drawings = []
    for (dataset, experiment), members in groups.items():
        colours, title_end = _colours(members), f"{context.title(dataset)}, {EXPERIMENTS[experiment].title}"
        made: list[tuple[str, str, str, Callable[[], Figure | None]]] = [
            (
                "reconstructions.png",
                f"Reconstructions, {title_end}",
                _RECONSTRUCTIONS[not EXPERIMENTS[experiment].fixed_variance],
                partial(reconstructions, members),
            ),
            (
                "curves.svg",
                f"Learning curves, {title_end}",
                "Bits per dimension on the selection split at every evaluation; mean over seeds, the band from the "
                "lowest to the highest.",
                partial(learning_curves, members, colours),
            ),
            (
                "gradient-variance.svg",
                f"Gradient variance, {title_end}",
                "Variance of the encoder's gradient under resampling of the code by epoch, logarithmic; each point is "
                "the mean over seeds.",
                partial(gradient_variance, members, context, colours),
            ),
            (
                "bpd-kl.svg",
                f"Bits per dimension against KL, {title_end}",
                "Each mark is one seed's reported BPD and KL divergence"
                + ("; grey outlines are the published values." if any(map(_published_pair, members)) else "."),
                partial(bpd_against_kl, members, colours),
            ),
        ]
        for ending, title, description, make in made:
            with mpl.rc_context(_SETTINGS):
                figure = make()
                if figure is None:
                    continue
                drawings.append(Drawing(f"{dataset}-{experiment}-{ending}", title, description, _bytes(figure, ending)))
    return drawings


_RECONSTRUCTIONS = {
    False: "First row: originals. Then for each method the mean of the reconstruction, as in the paper's Figure 2.",
    True: "First row: originals. Then for each method the mean of the reconstruction and below it the standard "
    "deviation, each image's scaled to the full range, as in the paper's Figures 3 to 5.",
}


def learning_curves(cells: Sequence[Cell], colours: dict[str, str]) -> Figure | None:
    """BPD on the selection split by epoch: a colour per estimator, solid with and dashed without silent gradients."""
    frames = []
    for cell in cells:
        for run in cell.runs:
            curve = thinned(run.curve[["epoch", "selection_bpd"]], "selection_bpd", _POINTS_PER_CURVE)
            frames.append(curve.assign(**_aesthetics(cell)))
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if data.empty:
        return None
    return _panels(
        data,
        colours,
        lambda axis, part: sns.lineplot(
            part,
            x="epoch",
            y="selection_bpd",
            hue="estimator",
            palette=colours,
            style="guidance",
            dashes=_DASHES,
            errorbar=("pi", 100),
            err_kws={"alpha": 0.15, "linewidth": 0},
            linewidth=1.4,
            ax=axis,
            legend=False,
        ),
        ("epoch", "BPD (selection split)"),
        # The first epochs of a slow method would otherwise flatten everything that differs later.
        limits=(float(data["selection_bpd"].min()), float(data["selection_bpd"].quantile(0.97))),
    )


def gradient_variance(cells: Sequence[Cell], context: Context, colours: dict[str, str]) -> Figure | None:
    """Gradient variance by epoch on a logarithmic axis, one panel for each reduction; zeros are named instead."""
    data = tables.gradient_variance(cells, context)
    data = data[data["seeds"] > 0] if len(data) else data
    if data.empty:
        return None
    labels = len(data.drop_duplicates(["method", "estimated_with"]))
    figure = Figure(figsize=(7.4, _height(labels)), layout="constrained")
    axes = figure.subplots(1, 2)
    named = {cell.method.name: cell for cell in cells}
    zeros: dict[str, None] = {}
    for axis, reduction in zip(axes, tables.REDUCTIONS, strict=True):
        floor = data[reduction].max() * _NUMERICAL_ZERO
        for (name, estimator), part in data.groupby(["method", "estimated_with"], sort=False):
            cell = named[str(name)]
            look = _aesthetics(cell)
            visible = part[part[reduction] > floor]
            if visible.empty:
                zeros[cell.method.label] = None
                continue
            axis.plot(
                visible["epoch"].astype(int),
                visible[reduction],
                color=colours[look["estimator"]],
                dashes=_DASHES[look["guidance"]] or (None, None),
                marker=_MARKERS[look["guidance"]],
                markersize=4,
                label=cell.method.label_with(str(estimator)),
            )
        if axis.lines:
            axis.set_yscale("log")
        axis.set(xlabel="epoch", title=reduction.replace("_", " ").replace("per image", "per-image"))
    axes[0].set_ylabel("gradient variance (nats²)")
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper")
    if zeros:
        figure.supxlabel(f"Zero up to rounding, not drawn: {', '.join(zeros)}", fontsize=8, color=_INK)
    return figure


def estimators_along_training(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Variance and bias of estimators by epoch of one run, as SVG; zeros are named instead.

    Args:
        points: The points of a ``Comparison``.
    """
    data = pd.DataFrame(list(points))
    names = list(dict.fromkeys(data["estimator"]))
    colours = {name: _PALETTE[number % len(_PALETTE)] for number, name in enumerate(names)}
    kinds: Any = ((None, None), (3, 1.5), (1, 1))
    dashes = {name: kinds[number // len(_PALETTE) % len(kinds)] for number, name in enumerate(names)}
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.4, 2.9), layout="constrained")
        variance, bias = figure.subplots(1, 2)
        zeros = []
        for name in names:
            part = data[data["estimator"] == name]
            look = {"color": colours[name], "dashes": dashes[name], "marker": "o", "markersize": 4, "label": name}
            if (part["per_image_mean"] > 0).all():
                variance.plot(part["epoch"], part["per_image_mean"], **look)
            else:
                zeros.append(name)
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
        figure.legend(*bias.get_legend_handles_labels(), loc="outside right upper")
        if zeros:
            figure.supxlabel(f"Zero, not drawn: {', '.join(zeros)}", fontsize=8, color=_INK)
        return _bytes(figure, "svg")


def _published_pair(cell: Cell) -> tuple[float, float] | None:
    """KL and BPD as the paper has them; None where it lacks one."""
    kl, bpd = published(cell.name, "kl"), published(cell.name, "bpd")
    return None if kl is None or bpd is None else (kl, bpd)


def bpd_against_kl(cells: Sequence[Cell], colours: dict[str, str]) -> Figure | None:
    """Reported BPD against KL, one mark per seed, with the published pairs as grey outlines."""
    rows = []
    for cell in cells:
        bpd, kl = cell.values("bpd"), cell.values("kl")
        rows += [{"bpd": bpd[seed], "kl": kl[seed], **_aesthetics(cell)} for seed in bpd.keys() & kl.keys()]
    if not rows:
        return None

    def scatter(axis: Axes, part: pd.DataFrame) -> None:
        sns.scatterplot(
            part,
            x="kl",
            y="bpd",
            hue="estimator",
            palette=colours,
            style="guidance",
            markers=_MARKERS,
            s=36,
            linewidth=0,
            alpha=0.85,
            ax=axis,
            legend=False,
        )
        for cell in cells:
            pair = _published_pair(cell)
            if pair is not None and cell.method.space == part["space"].iloc[0]:
                axis.plot(*pair, "o" if cell.method.silent else "X", mec=GREY, mfc="none", ms=7, mew=1)

    data = pd.DataFrame(rows).sort_values(["space", "estimator", "guidance", "kl"], ignore_index=True)
    return _panels(data, colours, scatter, ("KL (nats per image)", "BPD"), lines=False)


def _panels(
    data: pd.DataFrame,
    colours: dict[str, str],
    plot: Callable[[Axes, pd.DataFrame], object],
    labels: tuple[str, str],
    limits: tuple[float, float] | None = None,
    lines: bool = True,
) -> Figure:
    """One panel for each kind of posterior, one legend beside them."""
    spaces = [space for space in ("Continuous", "Discrete") if (data["space"] == space).any()]
    handles = list(_legend(data, colours, lines))
    figure = Figure(figsize=(3.0 * len(spaces) + 1.4, _height(len(handles))), layout="constrained")
    axes = figure.subplots(1, len(spaces), sharey=lines, squeeze=False)
    for axis, space in zip(axes[0], spaces, strict=True):
        plot(axis, data[data["space"] == space])
        axis.set(title=space, xlabel=labels[0], ylabel=labels[1] if axis is axes[0, 0] or not lines else "")
        if limits is not None and limits[1] > limits[0]:
            margin = 0.05 * (limits[1] - limits[0])
            axis.set_ylim(limits[0] - margin, limits[1] + margin)
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def _height(labels: int) -> float:
    """Inches that a legend of so many lines needs, and a plot at least."""
    return max(2.9, 0.4 + 0.19 * labels)


def _legend(data: pd.DataFrame, colours: dict[str, str], lines: bool) -> Iterator[Line2D]:
    present = set(data["estimator"])
    for estimator, colour in colours.items():
        if estimator in present:
            yield _sample(estimator, colour, "" if lines else "s", lines)
    for guidance in _DASHES:
        if (data["guidance"] == guidance).any():
            sample = _sample(guidance, _INK, "" if lines else _MARKERS[guidance], lines)
            if lines and _DASHES[guidance]:
                sample.set_dashes(_DASHES[guidance])
            yield sample


def _sample(label: str, colour: str, marker: str, line: bool) -> Line2D:
    return Line2D([], [], color=colour, label=label, marker=marker, markersize=5, linestyle="-" if line else "none")


def _aesthetics(cell: Cell) -> dict[str, str]:
    method = cell.method
    label = "None (SG alone)" if method.sampled_estimator == "none" else method.estimator_label
    return {
        "estimator": label,
        "guidance": method.guidance,
        "space": method.space,
    }


def figure_looks(cells: Sequence[Cell]) -> list[tuple[Cell, tuple[str, tuple[float, ...]]]]:
    """The colour and dashes that the figures of some cells, of one data set and experiment, draw each in."""
    colours = _colours(cells)
    return [
        (cell, (colours[_aesthetics(cell)["estimator"]], tuple(_DASHES[_aesthetics(cell)["guidance"]])))
        for cell in cells
    ]


def _colours(cells: Sequence[Cell]) -> dict[str, str]:
    estimators = dict.fromkeys(
        _aesthetics(cell)["estimator"] for cell in sorted(cells, key=lambda cell: cell.method.rank)
    )
    count = len(estimators)
    palette = (*_PALETTE, *_MORE, *sns.husl_palette(max(0, count - 12), s=0.8, l=0.5).as_hex())
    return dict(zip(estimators, palette, strict=False))


def _bytes(figure: Figure, ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending.endswith(".png"):
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().decode().replace(_INK, "currentColor")
    start = text.index(">", text.index("<svg")) + 1
    return (text[:start] + _STYLE + text[start:]).encode()
