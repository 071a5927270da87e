"""Hyperparameter grids as maps of heat: a column for each value of one axis, a row for each point of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from silent_study.methods import METHODS
from silent_study.report.context import Context, Record
from silent_study.report.layout.text import number
from silent_study.report.tables import GridPoint, grid_points, run_status

# Bits/dim: what differs by less is about equally dark.
_LEAST_SPAN = 0.05
# Worse points than this share would take the colours from those that are in question.
_COLOURED = 0.75


@dataclass(frozen=True)
class Tile:
    """One grid point on a map.

    Attributes:
        text: BPD on the selection split, or what became of the run.
        target: Name of its run.
        heat: 1 for the lowest BPD of its map, down to 0 for the highest that is coloured, or a twentieth of a bit above
            the lowest where all are closer than that; 0 for a diverged run.
    """

    text: str
    target: str
    heat: float
    selected: bool
    diverged: bool


@dataclass(frozen=True)
class GridMap:
    """The grid of one cell.

    Attributes:
        cell: Name of the cell.
        title: The method in words.
        group: Data set and experiment, the names of the store.
        axes: Names of the rows' axes.
        across: Name of the columns' axis; empty for a grid of one point without axes.
        columns: Values of the columns' axis.
        rows: Values of the rows' axes, and a tile for each column; ``None`` where the grid has no point.
    """

    cell: str
    title: str
    group: tuple[str, str]
    axes: tuple[str, ...]
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Tile | None, ...]], ...]

    @property
    def jointly(self) -> bool:
        """Whether the selected point is not the best one, because methods share an axis of their grids."""
        tiles = [tile for _, row in self.rows for tile in row if tile and not tile.diverged]
        return any(tile.selected and tile.text != min(tiles, key=lambda tile: float(tile.text)).text for tile in tiles)


def grid_maps(records: Sequence[Record], context: Context) -> list[GridMap]:
    """A map for each cell and round with a grid, in the order of the paper."""
    points = grid_points(records, context)
    return [_map(list(members)) for _, members in groupby(points, key=lambda point: (point.run.cell, point.run.round))]


def _map(points: Sequence[GridPoint]) -> GridMap:
    run = points[0].run
    axes = _independent(points)
    # The longest axis lies across, and of several the last, which is the one that a method has on its own.
    across = max(axes, key=lambda axis: (len(axes[axis]), list(axes).index(axis)), default="")
    down = [axis for axis in axes if axis != across]
    heats = _heats(points)
    tiles: dict[tuple[str, ...], dict[str, Tile]] = {}
    for point in sorted(points, key=lambda point: [axes[axis].index(dict(point.axes)[_first(axis)]) for axis in down]):
        values = {axis: shown(dict(point.axes)[_first(axis)]) for axis in axes}
        tile = Tile(
            run_status(point.run) if point.run.diverged else number(point.bpd),
            point.run.name,
            heats[point.run.name],
            point.selected,
            point.run.diverged,
        )
        tiles.setdefault(tuple(values[axis] for axis in down), {})[values.get(across, "")] = tile
    columns = tuple(map(shown, axes[across])) if across else ("",)
    rows = tuple((names, tuple(found.get(column) for column in columns)) for names, found in tiles.items())
    title = METHODS[run.experiment][run.method].label
    return GridMap(run.cell, title, (run.dataset, run.experiment), tuple(down), across, columns, rows)


def _independent(points: Sequence[GridPoint]) -> dict[str, list[Any]]:
    """Axes by name with their values in order; those that go hand in hand are one axis with the names of all."""
    groups: list[list[str]] = []
    table = [dict(point.axes) for point in points]
    for axis in table[0]:
        for group in groups:
            pairs = {(str(row[group[0]]), str(row[axis])) for row in table}
            # Axes of one value each would be taken for one.
            if 1 < len(pairs) == len({pair[0] for pair in pairs}) == len({pair[1] for pair in pairs}):
                group.append(axis)
                break
        else:
            groups.append([axis])
    # A rate of the reported model names an axis better than one of its guide that follows it.
    groups = [sorted(group, key=lambda axis: "." in axis) for group in groups]
    return {", ".join(group): _in_order([row[group[0]] for row in table]) for group in groups}


def _first(axis: str) -> str:
    return axis.split(", ")[0]


def _in_order(values: Sequence[Any]) -> list[Any]:
    """Distinct values, numbers first and ascending, ``None`` last."""
    distinct = list({str(value): value for value in values}.values())
    return sorted(distinct, key=lambda value: (value is None, isinstance(value, str), 0 if value is None else value))


def shown(value: Any) -> str:
    """A setting as people read it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _heats(points: Sequence[GridPoint]) -> dict[str, float]:
    bounds = np.array([point.bpd for point in points if not math.isnan(point.bpd)])
    if not len(bounds):
        return {point.run.name: 0.0 for point in points}
    best = float(bounds.min())
    span = max(float(np.quantile(bounds, _COLOURED)) - best, _LEAST_SPAN)
    return {
        point.run.name: 0.0 if math.isnan(point.bpd) else round(max(0.0, 1 - (point.bpd - best) / span), 2)
        for point in points
    }
