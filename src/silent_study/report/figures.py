"""The figures of each data set and experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from silent_study.methods import GUIDANCE
from silent_study.paper import published
from silent_study.report import tables
from silent_study.report.cells import Cell, Context
from silent_study.report.drawings import GREY, MORE, PALETTE, Drawing, drawing, exported, for_page
from silent_study.report.pictures import latents, reconstructions
from silent_study.report.statistics import summarize

_DASHES = dict(zip(GUIDANCE, ([4, 2], [1, 0], [1, 1.5]), strict=True))
_SHAPES = dict(zip(GUIDANCE, ("cross", "circle", "triangle-up"), strict=True))
_POINTS = 40
"""Most points of a curve in the page."""
# Quantile of the values of a kind of posterior above which curves are cut: first epochs would hide later differences.
_SHOWN = 0.9
# Below this share of the largest, a variance is rounding of an exact gradient and would only stretch the axis.
_NUMERICAL_ZERO = 1e-10
# A bias with a higher z-score is not noise.
_BIAS_SEEN = 4
_BAND, _SEEDS = "mean and 95% interval", "every seed"
_BPD, _ABOVE = "bits/dim", "above the closed form"

Rows = list[dict[str, Any]]


def draw(cells: Sequence[Cell], context: Context) -> list[Drawing]:
    """Return the drawings of each data set and experiment that have something to show."""
    drawings = []
    for (dataset, experiment), found in groupby(cells, key=lambda cell: (cell.dataset, cell.experiment)):
        members = list(found)
        group, name = context.group(dataset, experiment), f"{dataset}-{experiment}"
        drawings += [
            *reconstructions(members, f"{name}-reconstructions", f"Reconstructions, {group}"),
            *latents(members, context, f"{name}-latents", f"Samples and latent traversals, {group}"),
            *_curves(members, context, f"{name}-curves", f"Learning curves, {group}"),
            *_gradient_variance(members, context, f"{name}-gradient-variance", f"Gradient variance, {group}"),
            *_bpd_against_kl(members, f"{name}-bpd-kl", f"Bits per dimension against KL, {group}"),
        ]
    return drawings


def colours(cells: Sequence[Cell]) -> dict[str, str]:
    """Return a colour for each label of a method: one for each estimator, and for each method without one."""
    methods = sorted((cell.method for cell in cells), key=lambda method: method.rank)
    keys = {each.label: each.label if each.sampled_estimator == "none" else each.estimator_label for each in methods}
    hues = list(dict.fromkeys(keys.values()))
    more = map(to_hex, colormaps["turbo"](np.linspace(0.05, 0.95, max(0, len(hues) - len(PALETTE + MORE)))))
    found = dict(zip(hues, (*PALETTE, *MORE, *more), strict=False))
    return {label: found[hue] for label, hue in keys.items()}


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Return at most ``_POINTS`` rows, evenly spread, both ends among them."""
    return frame.iloc[np.unique(np.linspace(0, len(frame) - 1, min(len(frame), _POINTS)).round().astype(int))]


def curves(cells: Sequence[Cell], context: Context) -> pd.DataFrame:
    """Return the mean of each cell (without a seed) with the 95% interval of its seeds, and each seed, by epoch.

    Values above the quantile ``_SHOWN`` of their kind of posterior are left out, and intervals end there.
    """
    parts = []
    for name, frame in tables.curves([run for cell in cells for run in cell.runs]).items():
        cell = next(cell for cell in cells if cell.name == name)
        kept = _thinned(frame).rename(columns={"selection_bpd": "mean"})
        seeds = kept.filter(like="seed_")
        bands = [summarize([value for value in row if math.isfinite(value)]) for row in seeds.to_numpy()]
        part = kept.melt("epoch", var_name="seed", value_name="bpd")
        for end in ("low", "high"):
            ends = pd.Series([getattr(band, end) for band in bands], index=kept["epoch"])
            part[end] = part["epoch"].map(ends).where(part["seed"] == "mean")
        about = {"cell": name, "method": cell.method.label, "space": cell.method.space}
        parts.append(part.assign(**about, limit=tables.limit(cell, "bpd", context)))
    if not parts:
        return pd.DataFrame()
    data = pd.concat(parts, ignore_index=True).dropna(subset="bpd")
    data["seed"] = pd.to_numeric(data["seed"].str.removeprefix("seed_"), errors="coerce").astype("Int64")
    if len(data["epoch"].unique()) > 1:
        most = data["space"].map(data.dropna(subset="seed").groupby("space")["bpd"].quantile(_SHOWN))
        data = data[data["bpd"] <= most].assign(high=data["high"].clip(upper=most), low=data["low"].clip(upper=most))
    return data


def _curves(cells: Sequence[Cell], context: Context, name: str, title: str) -> Iterator[Drawing]:
    data = curves(cells, context)
    if data.empty:
        return
    limited = bool(data["limit"].notna().any())
    description = (
        "Bits per dimension on the selection split at every evaluation: mean over seeds with its 95% interval, as in "
        f"the tables, or every seed. The highest {100 - 100 * _SHOWN:.0f}% of the values are not shown."
        f"{' The closed form is that of the report split.' * limited}"
    )
    look = _look(cells, "method")
    # A row of lists for each line takes a third of the space.
    known = data.round(4).astype(object).where(data.notna(), None)
    lines = known.groupby(["method", "space", "seed", "limit"], sort=False, dropna=False)
    rows = lines[["epoch", "bpd", "low", "high"]].agg(list).reset_index()
    chart = _interactive_curves(limited, look).properties(width="container", height=320, data=_values(rows))
    still = _curve_layers(alt.Chart(), "false", look).properties(data=_values(data[data["seed"].isna()]))
    yield drawing(
        name,
        title,
        description,
        lambda width: _spec(_faceted(still, "space:N", data["space"].nunique(), width)),
        data,
        _spec(chart),
    )


def _curve_layers(
    base: alt.Chart, seeds: str, look: Mapping[str, Any], prefix: str = "", axis: alt.Axis | None = None
) -> Any:
    """Return the bands and the lines of means, or of seeds where the expression ``seeds`` is true."""
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1))
    y: Any = {"scale": alt.Scale(zero=False), "title": _BPD, "axis": axis or alt.Axis()}
    band = base.mark_area(opacity=0.18).transform_filter(f"datum.seed === null && !({seeds}) && isValid(datum.low)")
    band = band.encode(x=x, y=alt.Y(f"{prefix}low:Q", **y), y2=f"{prefix}high:Q")
    line = base.mark_line().transform_filter(f"(datum.seed === null) != ({seeds})")
    line = line.encode(x=x, y=alt.Y(f"{prefix}bpd:Q", **y), detail="seed:N")
    colour = {**look["color"], "legend": {"symbolType": "stroke"}}
    return alt.layer(band.encode(color=colour), line.encode(color=colour, strokeDash=look["strokeDash"]))


def _interactive_curves(limited: bool, look: Mapping[str, Any]) -> Any:
    """Return curves of which the reader chooses methods, lines and axis, and that zoom."""
    columns = ("bpd", "low", "high")
    base, axis, on_axis = alt.Chart().transform_flatten(["epoch", *columns]), alt.Axis(), f"axis == '{_BPD}'"
    if limited:
        base = base.transform_filter(f"{on_axis} || (datum.limit !== null && datum.bpd > datum.limit)")
        shown = {name: f"{on_axis} ? datum.{name} : log(datum.{name} - datum.limit) / LN10" for name in columns}
        base = base.transform_calculate(**{f"shown_{name}": expression for name, expression in shown.items()})
        axis = alt.Axis(labelExpr=f"{on_axis} ? datum.label : format(pow(10, datum.value), '.2~g')")
    seeds = f"lines == '{_SEEDS}'"
    band, line = _curve_layers(base, seeds, look, "shown_" if limited else "", axis).layer
    chosen = alt.selection_point(name="chosen", fields=["method"], bind="legend")
    tooltip = ["method:N", "seed:N", "epoch:Q", *(alt.Tooltip(f"{name}:Q", format=".4f") for name in columns)]
    line = line.mark_line(point={"size": 15}).encode(tooltip=tooltip)
    band, line = (
        layer.encode(opacity=alt.when(chosen).then(alt.value(shown)).otherwise(alt.value(hidden)))
        for layer, shown, hidden in ((band, 0.18, 0), (line, 1, 0.08))
    )
    params = [alt.param(name="lines", value=_BAND, bind=alt.binding_radio(options=[_BAND, _SEEDS], name="Lines: "))]
    if limited:
        options = alt.binding_radio(options=[_BPD, _ABOVE], name="Axis: ")
        params.append(alt.param(name="axis", value=_BPD, bind=options))
    line = line.add_params(chosen, alt.selection_interval(name="zoom", bind="scales"))
    return alt.layer(band, line).add_params(*params)


def _gradient_variance(cells: Sequence[Cell], context: Context, name: str, title: str) -> Iterator[Drawing]:
    """Draw gradient variance by epoch on a logarithmic axis, one panel per reduction; zeros are listed instead."""
    data = tables.gradient_variance(cells, context)
    data = data[data["seeds"] > 0] if len(data) else data
    if data.empty:
        return
    methods = {cell.method.name: cell.method for cell in cells}
    estimated = zip(data["method"], data["estimated_with"], strict=True)
    data["line"] = [methods[name].label_with(str(estimator)) for name, estimator in estimated]
    data["label"] = [methods[name].label for name in data["method"]]
    drawn = data.melt(["line", "label", "epoch"], list(tables.REDUCTIONS), "reduction", "variance")
    drawn = drawn[drawn["variance"] > drawn.groupby("reduction")["variance"].transform("max") * _NUMERICAL_ZERO]
    drawn = drawn.astype({"epoch": float}).replace({"reduction": tables.REDUCTIONS})
    drawn = drawn[["line", "label", "epoch", "variance", "reduction"]]
    zeros = data.loc[~data["line"].isin(drawn["line"]), "label"].unique()
    note = f" Zero up to rounding, not drawn: {', '.join(zeros)}." if len(zeros) else ""
    labels = dict(zip(drawn["line"], drawn["label"], strict=True))
    x, y = alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)), alt.Y("variance:Q", title="gradient variance (nats²)")
    y = y.scale(type="log").axis(tickCount=4) if len(drawn) else y
    chart = alt.Chart(_values(drawn)).mark_line(point=True)
    chart = chart.encode(x=x, y=y, tooltip=["line:N", "epoch:Q", "variance:Q"], **_look(cells, "line", labels))
    yield drawing(
        name,
        title,
        "Variance of the encoder's gradient over draws of the latent variables, by epoch, logarithmic; each point is "
        f"the mean over seeds.{note}",
        lambda width: _spec(_faceted(chart, "reduction:N", 2, width)),
        drawn,
    )


def _bpd_against_kl(cells: Sequence[Cell], name: str, title: str) -> Iterator[Drawing]:
    """Draw reported BPD against KL, one mark per seed, with the published pairs as grey outlines."""
    rows: Rows = []
    for cell in cells:
        bpd, kl = cell.values("bpd"), cell.values("kl")
        about = {"method": cell.method.label, "space": cell.method.space}
        rows += [{**about, "seed": str(seed), "bpd": bpd[seed], "kl": kl[seed]} for seed in bpd.keys() & kl.keys()]
        pair = published(cell.name, "bpd"), published(cell.name, "kl")
        if rows and None not in pair:
            rows.append({**about, "seed": "published", "bpd": pair[0], "kl": pair[1]})
    if not rows:
        return
    look = _look(cells, "method")
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("kl:Q", title="KL (nats per image)", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
        y=alt.Y("bpd:Q", title=_BPD, scale=alt.Scale(zero=False)),
        shape=look["shape"],
        tooltip=["method:N", "seed:N", "bpd:Q", "kl:Q"],
    )
    ours = base.mark_point(filled=True, size=40, opacity=0.85).encode(color=look["color"])
    theirs = base.mark_point(size=50, color=GREY).transform_filter("datum.seed == 'published'")
    chart = alt.layer(ours.transform_filter("datum.seed != 'published'"), theirs)
    known = any(row["seed"] == "published" for row in rows)
    yield drawing(
        name,
        title,
        f"Each mark is one seed's reported BPD and KL divergence{'; grey outlines are the published values' * known}.",
        lambda width: _spec(_faceted(chart, "space:N", len({row["space"] for row in rows}), width, x="independent")),
        pd.DataFrame(rows),
    )


def estimators_along_training(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Return variance and bias by epoch of the points of a ``Comparison`` as an SVG; zeros are listed instead."""
    data = pd.DataFrame(list(points))
    names = list(dict.fromkeys(data["estimator"]))
    positive = data.groupby("estimator")["per_image_mean"].transform("min") > 0
    look = {
        "color": alt.Color("estimator:N", scale=alt.Scale(domain=names, range=[*PALETTE, *MORE])),
        "strokeDash": alt.StrokeDash("estimator:N", scale=alt.Scale(domain=names)),
    }
    base = alt.Chart().mark_line(point=True).encode(x="epoch:Q", **look).properties(width=240, height=200)
    title = "gradient variance (nats²), per-image mean"
    variance = base.encode(y=alt.Y("per_image_mean:Q", title=title, scale=alt.Scale(type="log")))
    variance = variance.properties(data=_values(data[positive]))
    axis = alt.Scale(type="symlog", constant=_BIAS_SEEN)
    bias = base.encode(y=alt.Y("bias_z:Q", title=f"z of the bias; seen above {_BIAS_SEEN}", scale=axis))
    bias = bias.properties(data=_values(data))
    line = alt.Chart(alt.InlineData(values=[{"y": _BIAS_SEEN}])).mark_rule(color=GREY).encode(y="y:Q")
    zeros = [str(name) for name in names if name not in set(data[positive]["estimator"])]
    caption = f"Zero, not drawn: {', '.join(zeros)}" if zeros else ""
    figure = alt.hconcat(variance, alt.layer(line, bias), title=alt.Title(caption, orient="bottom", fontSize=9))
    return for_page(exported(_spec(figure), 6.9)["svg"].decode()).encode()


def _look(cells: Sequence[Cell], field: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the encodings of methods: a colour for each estimator, dashes and marks for each kind of guidance.

    ``field`` is the column of their labels, or of lines with the method's label in ``labels``.
    """
    found, guidance = colours(cells), {cell.method.label: cell.method.guidance for cell in cells}
    lines = labels or {label: label for label in found}
    ranges = {
        "color": [found[label] for label in lines.values()],
        "strokeDash": [_DASHES[guidance[label]] for label in lines.values()],
        "shape": [_SHAPES[guidance[label]] for label in lines.values()],
    }
    return {
        channel: {"field": field, "type": "nominal", "scale": {"domain": list(lines), "range": values}}
        for channel, values in ranges.items()
    }


def _faceted(chart: Any, field: str, panels: int, width: float, x: str = "shared") -> Any:
    """Return panels side by side on a page's width, one below the other in a column."""
    columns = panels if width > 5 else 1
    size = {"width": (96 * width - 20) / columns - 60, "height": 170}
    facets = chart.properties(**size).facet(alt.Facet(field, title=None), columns=columns)
    return facets.resolve_scale(x=x, y="independent")


def _values(frame: pd.DataFrame) -> alt.InlineData:
    """Return the rows of a frame as a chart's data, missing values as null."""
    rows: Any = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return alt.InlineData(values=rows)


def _spec(chart: Any) -> dict[str, Any]:
    with alt.data_transformers.enable(consolidate_datasets=False):
        found: dict[str, Any] = chart.to_dict(validate=False)
    return found
