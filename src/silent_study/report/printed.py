"""Printed tables: numbers as text, the parts of a table, the links of its numbers, and its Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pandas as pd

from silent_study.report.cells import described
from silent_study.report.context import Context
from silent_study.settings import EXPERIMENTS

BEYOND = "beyond the paper"
NOTHING = "–"
METRIC_LABELS = {
    "bpd": "BPD",
    "kl": "KL",
    "mse_mean_decoded": "MSE, mean decoded",
    "mse_sampled": "MSE, sampled",
    "mse_sampled_clamped": "MSE, sampled and clamped",
    "epochs_to_threshold": "epochs to threshold",
}
DIGITS = {"bpd": 3, "kl": 2, "epochs_to_threshold": 1}

# Columns that are left out where they are empty, by the first words of their names.
_MAY_BE_EMPTY = ("with sampled guide", "closed form", "importance-weighted", "at the edge")
_OF_VERDICTS = ("p, sign flips", "collapsed", "conditional", "marks")
_OF_MEASUREMENTS = ("published", "difference")


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """Return a number with a fixed count of decimals and a true minus sign; a dash for ``nan``."""
    if math.isnan(value):
        return NOTHING
    # Adding zero turns a rounded -0 into 0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: float, high: float, count: int, digits: int = 3, of: str = "seed", sign: bool = False) -> str:
    """Return the ends of an interval of ``count`` seeds or pairs, or why there is none."""
    if count == 1:
        return f"one {of}: none"
    return NOTHING if math.isnan(low) else f"[{number(low, digits, sign)}, {number(high, digits, sign)}]"


def monte_carlo(error: float) -> str:
    """Return the error that the latent samples leave; ``exact`` if no sample was needed."""
    return "exact" if error == 0 else number(error, 4)


def probability(value: float) -> str:
    """Return a p-value to three decimals."""
    return "<0.001" if value < 0.0005 else number(value)


def significant(value: float) -> str:
    """Return three significant digits of a number of any size; below a hundred billion without an exponent."""
    if math.isnan(value):
        return NOTHING
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if 1000 <= abs(rounded) < 1e11 else f"{value:.3g}"
    return text.replace("-", "−")


def setting(value: Any) -> str:
    """Return the value of a setting as text."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


class Linked(str):
    """A printed number and where it was measured.

    Attributes:
        target: Name of a cell or run.
    """

    target: str

    def __new__(cls, text: str, target: str) -> Linked:
        """Make the text a link."""
        linked = super().__new__(cls, text)
        linked.target = target
        return linked


@dataclass(frozen=True)
class Part:
    """One printed table.

    Attributes:
        frame: Text only, ``Linked`` where a number was measured; columns may have two levels, the upper one grouping
            them.
        headers: Number of leading columns that name a row.
        folded: True if a page may hide it at first.
    """

    caption: str
    frame: pd.DataFrame
    headers: int
    folded: bool = False

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[Any, str]], headers: int, folded: bool = False) -> Part:
        """Make a table of rows by column, without empty columns on what may not exist, such as published numbers."""
        part = cls(caption, pd.DataFrame(list(rows), dtype=object), headers, folded)
        columns: list[Any] = list(part.frame.columns)
        # A difference of two methods that were not run is news; one to a paper that has no number is not.
        may_be_empty = _MAY_BE_EMPTY + (_OF_VERDICTS if "Verdict" in columns else _OF_MEASUREMENTS)
        empty = [
            column
            for column, (_, name) in zip(columns, part.columns, strict=True)
            if name.lower().startswith(may_be_empty) and part.frame[column].eq(NOTHING).all()
        ]
        return replace(part, frame=part.frame.drop(columns=empty))

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Group and name of each column; the group is empty where there is none."""
        columns: list[Any] = list(self.frame.columns)
        return [column if isinstance(column, tuple) else ("", column) for column in columns]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each group and its number of columns; empty if no column has a group."""
        groups = [(group, len(list(members))) for group, members in groupby(self.columns, key=itemgetter(0))]
        return groups if any(group for group, _ in groups) else []

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts of each row."""
        return list(self.frame.itertuples(index=False, name=None))


@dataclass(frozen=True)
class Table:
    """A table of the report: its numbers for programs, its parts for people.

    Attributes:
        name: Stem of its files.
        notes: Preset, data, split, units and caveats of its numbers.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    data: pd.DataFrame
    parts: tuple[Part, ...]


def markdown(table: Table) -> str:
    """Return a table as a Markdown document, its column groups written into the column names."""
    lines = [f"# {table.title}", "", *(f"{note}\n" for note in table.notes)]
    for part in table.parts:
        names = [" ".join(filter(None, column)) for column in part.columns]
        rows = [names, ["---"] * len(names), *part.rows]
        escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
        lines += [part.caption, "", *(f"| {' | '.join(row)} |" for row in escaped), ""]
    return "\n".join(lines)


def group_name(dataset: str, experiment: str, context: Context, beyond: bool = False) -> str:
    """Return a data set and an experiment in words."""
    return f"{context.title(dataset)}, {EXPERIMENTS[experiment].title}{f', {BEYOND}' if beyond else ''}"


def grouped(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield groups of rows by text columns, in order of appearance; an empty frame, without columns, has none."""
    if len(frame):
        for values, rows in frame.groupby(list(keys), sort=False):
            yield tuple(map(str, values)), rows


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame by column name."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def facts(data: pd.DataFrame, context: Context) -> list[str]:
    """Return notes on preset and protocol, and on each data set's digest, split, number of images and samples."""
    protocols = [value for value in data["protocol"] if value] if len(data) else []
    lines = [f"Preset {context.preset}, protocol {described(protocols) or context.protocol}."]
    texts = {"data_sha256": "sha256 {}", "split": "{} split", "images": "{} images"}
    texts |= {"samples": "{} samples per image", "draws": "{} draws"}
    for (dataset,), rows in grouped(data, "dataset"):
        columns = {column: rows[column][rows[column] != ""] for column in texts if column in rows}
        made = [texts[column].format(described(list(values))) for column, values in columns.items() if len(values)]
        version = context.datasets.get(dataset, {}).get("version")
        about = f"{context.title(dataset)} ({dataset}{f'; {version}' if version else ''})"
        lines.append(f"Data set {about}: {', '.join(made) or 'nothing measured'}.")
    return lines
