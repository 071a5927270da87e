"""A printed table: its parts, the links of its numbers, and its Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from silent_study.report.context import Context
from silent_study.report.layout.text import NOTHING
from silent_study.settings import EXPERIMENTS

BEYOND = "beyond the paper"


@dataclass(frozen=True)
class Linked:
    """A printed number and where it comes from.

    Attributes:
        target: Name of the cell or run that it was measured in.
    """

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Part:
    """One printed table.

    Attributes:
        caption: What it shows.
        frame: Text only; columns may have two levels, the upper one grouping them.
        headers: Number of leading columns that name a row.
        folded: Whether a page may hide it at first.
        links: For each row the cells or runs that its numbers were measured in, by column.
    """

    caption: str
    frame: pd.DataFrame
    headers: int
    folded: bool = False
    links: tuple[Mapping[Any, str], ...] = ()

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[Any, str | Linked]], headers: int, folded: bool = False) -> Part:
        """A table of rows by column, without the columns on what does not exist here, such as published numbers."""
        text = [{column: str(value) for column, value in row.items()} for row in rows]
        links = tuple(
            {
                column: value.target
                for column, value in row.items()
                if isinstance(value, Linked) and value.text != NOTHING
            }
            for row in rows
        )
        return cls(caption, _filled(pd.DataFrame(text)), headers, folded, links)


@dataclass(frozen=True)
class Table:
    """A table of the report: its numbers for programs, its parts for people.

    Attributes:
        name: Stem of its files.
        notes: What its numbers are: preset, data, split, units, caveats.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    data: pd.DataFrame
    parts: tuple[Part, ...]


def markdown(table: Table) -> str:
    """A table as a Markdown document, its column groups written into the column names."""
    lines = [f"# {table.title}", "", *(f"{note}\n" for note in table.notes)]
    for part in table.parts:
        frame = part.frame
        columns: list[Any] = list(frame.columns)
        names = [" ".join(filter(None, name)) if isinstance(name, tuple) else name for name in columns]
        lines += [part.caption, "", _row(names), _row(["---"] * len(names))]
        lines += [_row(list(row)) for row in frame.itertuples(index=False)]
        lines.append("")
    return "\n".join(lines)


def group_name(dataset: str, experiment: str, context: Context, beyond: bool = False) -> str:
    """A data set and an experiment in words."""
    return f"{context.title(dataset)}, {EXPERIMENTS[experiment].title}{f', {BEYOND}' if beyond else ''}"


def grouped(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Groups of rows by text columns, in order of appearance; none of an empty frame, which has no columns."""
    if len(frame):
        for values, rows in frame.groupby(list(keys), sort=False):
            yield tuple(map(str, values)), rows


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a frame by column name."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


_MAY_BE_EMPTY = ("with sampled guide", "published", "difference", "closed form", "importance-weighted")


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame without columns that may be empty, as those on the paper, where they are."""

    def is_empty(column: tuple[str, str] | str) -> bool:
        name = (column[1] if isinstance(column, tuple) else column).lower()
        return name.startswith(_MAY_BE_EMPTY) and bool(frame[column].eq(NOTHING).all())

    # A difference of two methods that were not run is news; one to a paper that has no number is not.
    empty = [column for column in frame.columns if is_empty(column) and "Verdict" not in frame.columns]
    return frame.drop(columns=empty)


def _row(cells: Sequence[str]) -> str:
    escape: Callable[[str], str] = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    return f"| {' | '.join(escape(str(cell)) for cell in cells)} |"
