"""Hyperparameter grids: points, tables, maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from silent_study.methods import METHODS
from silent_study.report import printed, tables
from silent_study.report.cells import Context, Record, rank, run_status
from silent_study.report.printed import NOTHING, Part, Table, Text, number

# Bits/dim: smaller differences within a map hardly change the colour.
_LEAST_SPAN = 0.05
# Worse points than this share would take the colours from the better ones.
_COLOURED = 0.75


@dataclass(frozen=True)
class GridPoint:
    """A configuration that a selection compared."""

    run: Record
    axes: dict[str, Any]  # the settings in which the points of its grid differ, with its values
    selected: bool  # whether the reported runs are of this point
    edges: tuple[str, ...]  # the axes on whose lowest or highest value a selected point lies

    @property
    def bpd(self) -> float:
        """Final BPD on the selection split, which the selection minimises; infinite for a diverged run."""
        return self.run.final_bpd

    @property
    def text(self) -> str:
        """BPD on the selection split, or what became of the run."""
        return run_status(self.run) if self.run.diverged else number(self.bpd)


def grid_points(records: Iterable[Record], context: Context) -> list[GridPoint]:
    """Return every configuration that was compared: cells in the paper's order, the best of each cell first."""
    grids: dict[tuple[str, str], dict[str, Record]] = {}
    chosen = {entry.get("run") for entry in context.selections.values() if entry.get("status") != "diverged"}
    reported = set()
    for run in records:
        if run.round == "seeds":
            reported.add(_without_seed(run))
        else:
            grids.setdefault((run.cell, run.round), {})[run.name] = run
    points = []
    for members in grids.values():
        grid = list(_with_axes(list(members.values()), context))
        for run, axes in grid:
            selected = _without_seed(run) in reported or run.name in chosen
            edges = edges_of(axes, [others for _, others in grid]) if selected else ()
            points.append(GridPoint(run, axes, selected, edges))
    return sorted(points, key=lambda point: (*rank(point.run.cell), point.run.round, point.bpd, point.run.name))


def _with_axes(grid: Sequence[Record], context: Context) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Yield the runs of one grid with the settings in which they differ; a grid of one point has its declared axes."""
    every = [dict(tables.leaves(run.settings)) for run in grid]
    names = dict.fromkeys(name for settings in every for name in settings if name != "seed")
    varied = [name for name in names if len({str(settings.get(name)) for settings in every}) > 1]
    for run, settings in zip(grid, every, strict=True):
        declared = [axis for axis in context.grid_axes.get(run.cell, ()) if axis in settings]
        yield run, {axis: settings.get(axis) for axis in varied or declared}


def edges_of(axes: Mapping[str, Any], grid: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the axes on whose first or last value a point lies; ``None``, as of a cut-off that never comes, is last.

    An axis with a single value, or with texts, has no edge.
    """
    values = {axis: _in_order([other[axis] for other in grid]) for axis in axes}
    return tuple(
        axis
        for axis, value in axes.items()
        if len(values[axis]) > 1 and not isinstance(value, str) and value in (values[axis][0], values[axis][-1])
    )


def _without_seed(run: Record) -> str:
    """Return a run's settings without its seed, which the runs of one grid point share."""
    return str(sorted((name, str(value)) for name, value in tables.leaves(run.settings) if name != "seed"))


def grid(points: Sequence[GridPoint], context: Context) -> pd.DataFrame:
    """Return every grid point in its order."""
    rows = [
        {
            "preset": context.preset,
            "protocol": run.settings["data"]["protocol"],
            "dataset": run.dataset,
            "data_sha256": run.settings["data"]["sha256"][: tables.DIGEST],
            "experiment": run.experiment,
            "method": run.method,
            "round": run.round,
            "point": ", ".join(f"{axis}={value}" for axis, value in point.axes.items()),
            "selected": point.selected,
            "edge": ", ".join(point.edges),
            "split": selection.get("split", ""),
            "selection_bpd": tables.number(selection.get("bpd")),
            "monte_carlo_error": tables.number(selection.get("bpd_mc_error")),
            "selection_kl": tables.number(selection.get("kl")),
            "seed": run.seed,
            "epochs": run.result["epochs"],
            "status": run_status(run),
            "name": run.name,
        }
        for point, run, selection in ((point, point.run, point.run.metrics("selection")) for point in points)
    ]
    return pd.DataFrame(rows)


def grid_table(points: Sequence[GridPoint], context: Context) -> Table:
    """Return the table of every configuration, best first."""
    data = grid(points, context)
    parts = []
    for (dataset, experiment), group in printed.grouped(data, "dataset", "experiment"):
        rows = [
            {
                "Method": METHODS[experiment][row["method"]].label,
                "Point": printed.named(row["point"]) or "the only one",
                "Selected": "selected" if row["selected"] else "",
                "At the edge of": printed.named(row["edge"]) or NOTHING,
                "BPD": Text(number(row["selection_bpd"]), row["name"]),
                "Monte-Carlo error": printed.monte_carlo(row["monte_carlo_error"]),
                "KL": number(row["selection_kl"], 2),
                "Split": row["split"] or NOTHING,
                "Seed": str(row["seed"]),
                "Epochs": str(row["epochs"]),
                "Status": row["status"] if math.isfinite(row["selection_bpd"]) else Text(row["status"], row["name"]),
            }
            for row in group.to_dict("records")
        ]
        caption = f"{context.group(dataset, experiment)}: grid of {len(rows)} runs"
        parts.append(Part.of(caption, rows, 2, main={"Method", "Selected", "BPD", "KL", "Status"}, folded=True))
    about = "Every configuration that was tried, best first by the BPD on the selection split; one seed each."
    return Table("grid", "Hyperparameter grids", (*printed.facts(data, context), about), data, tuple(parts))


@dataclass(frozen=True)
class GridMap:
    """The grid of one cell: a column for each value of one axis, a row for each point of the others.

    A row has the values of its axes, and for each column the point and its heat, 1 for the lowest BPD of the map down
    to 0; None if the grid has no such point.
    """

    cell: str  # name
    title: str  # the method in words
    group: str  # data set and experiment in words
    axes: tuple[str, ...]  # names of the rows' axes
    across: str  # name of the columns' axis; empty for a grid of one point without axes
    columns: tuple[str, ...]  # values of the columns' axis
    rows: tuple[tuple[tuple[str, ...], tuple[tuple[GridPoint, float] | None, ...]], ...]


def grid_maps(points: Sequence[GridPoint], context: Context) -> list[GridMap]:
    """Return a map for each cell and round with a grid, in the order of the paper."""
    grids = groupby(points, key=lambda point: (point.run.cell, point.run.round))
    return [_map(list(members), context) for _, members in grids]


def _map(points: Sequence[GridPoint], context: Context) -> GridMap:
    run = points[0].run
    axes = _independent(points)
    values = {axis: _in_order([point.axes[axis] for point in points]) for axis in axes}
    # The longest axis lies across; of several, the last, which is the method's own.
    across = max(reversed(axes), key=lambda axis: len(values[axis]), default="")
    down = [axis for axis in axes if axis != across]
    heats = _heats(points)
    rows: dict[tuple[str, ...], dict[str, tuple[GridPoint, float]]] = {}
    for point in sorted(points, key=lambda point: [values[axis].index(point.axes[axis]) for axis in down]):
        row = rows.setdefault(tuple(printed.setting(point.axes[axis]) for axis in down), {})
        row[printed.setting(point.axes[across]) if across else ""] = (point, heats[point.run.name])
    columns = tuple(map(printed.setting, values[across])) if across else ("",)
    return GridMap(
        run.cell,
        METHODS[run.experiment][run.method].label,
        context.group(run.dataset, run.experiment),
        tuple(printed.named(axes[axis]) for axis in down),
        printed.named(axes.get(across, "")),
        columns,
        tuple((names, tuple(row.get(column) for column in columns)) for names, row in rows.items()),
    )


def _independent(points: Sequence[GridPoint]) -> dict[str, str]:
    """Return the axes with their names; axes that vary together are one axis with all names."""
    groups: list[list[str]] = []
    for axis in points[0].axes:
        for group in groups:
            pairs = {(str(point.axes[group[0]]), str(point.axes[axis])) for point in points}
            # Axes with a single value each would be taken for one axis.
            if 1 < len(pairs) == len({first for first, _ in pairs}) == len({second for _, second in pairs}):
                group.append(axis)
                break
        else:
            groups.append([axis])
    # A learning rate of the reported model names an axis better than one of its guide that follows it.
    groups = [sorted(group, key=lambda axis: "." in axis) for group in groups]
    return {group[0]: ", ".join(group) for group in groups}


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values: numbers ascending, then texts, then ``None``."""
    distinct = list({str(value): value for value in values}.values())
    return sorted(distinct, key=lambda value: (value is None, isinstance(value, str), 0 if value is None else value))


def _heats(points: Sequence[GridPoint]) -> dict[str, float]:
    bounds = [point.bpd for point in points if not point.run.diverged]
    span = max(float(np.quantile(bounds, _COLOURED)) - min(bounds), _LEAST_SPAN) if bounds else _LEAST_SPAN
    # A diverged run has an infinite bound.
    return {point.run.name: round(max(0.0, 1 - (point.bpd - min(bounds, default=0)) / span), 2) for point in points}
