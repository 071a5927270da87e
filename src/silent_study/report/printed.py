"""Numbers as text; tables as Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from silent_study.report.cells import Context, described
from silent_study.report.claims import VERDICTS

NOTHING = "–"
METRIC_LABELS = {
    "bpd": "BPD",
    "bpd_mc_error": "BPD, Monte-Carlo error",
    "bpd_median_image": "BPD, median image",
    "kl": "KL",
    "mse_mean_decoded": "MSE, mean decoded",
    "mse_sampled": "MSE, sampled",
    "mse_sampled_clamped": "MSE, sampled and clamped",
    "epochs_to_threshold": "epochs to threshold",
}
DIGITS = {"bpd": 3, "kl": 2, "epochs_to_threshold": 1}

# Columns that are left out where they are empty, by a part of their names.
_MAY_BE_EMPTY = ("published", "closed form", "importance-weighted", "at the edge", "sign flips", "collapsed", "marks")


class Text(str):
    """A printed text."""

    target: str  # name of the cell or run in which it was measured; empty for other texts
    value: float  # by which a table is sorted; ``nan`` for words and for what is missing

    def __new__(cls, text: str, target: str = "", value: float = math.nan) -> Text:
        """Make a text; the value is that of the text it is made from, unless it is given."""
        made = super().__new__(cls, text)
        made.target, made.value = target, getattr(text, "value", value)
        return made


def number(value: float, digits: int = 3, sign: bool = False) -> Text:
    """Return a number with a fixed count of decimals and a true minus sign; a dash for ``nan``."""
    if math.isnan(value):
        return Text(NOTHING)
    # Adding zero turns a rounded -0 into 0.
    text = f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"
    return Text(text.replace("-", "−"), value=value)


def interval(low: float, high: float, count: int, digits: int = 3, of: str = "seed", sign: bool = False) -> Text:
    """Return the ends of an interval of ``count`` seeds or pairs, or why there is none."""
    if count == 1:
        return Text(f"one {of}: none")
    ends = f"[{number(low, digits, sign)}, {number(high, digits, sign)}]"
    return Text(NOTHING if math.isnan(low) else ends, value=low)


def monte_carlo(error: float) -> Text:
    """Return the error that the latent samples leave; ``exact`` if no sample was needed."""
    return Text("exact", value=0) if error == 0 else number(error, 4)


def probability(value: float) -> Text:
    """Return a p-value to three decimals."""
    return Text("<0.001", value=value) if value < 0.0005 else number(value)


def significant(value: float) -> Text:
    """Return three significant digits of a number of any size; below a hundred billion without an exponent."""
    if math.isnan(value):
        return Text(NOTHING)
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if 1000 <= abs(rounded) < 1e11 else f"{value:.3g}"
    return Text(text.replace("-", "−"), value=value)


def setting(value: Any) -> str:
    """Return the value of a setting as text."""
    return "none" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def named(setting: str) -> str:
    """Return a text with names of settings in words, e.g. ``guide's annealing rate`` for ``silent.annealing_rate``."""
    return re.sub(r"(?<=[a-z])[._](?=[a-z])", " ", setting.replace("silent.", "guide's "))


@dataclass(frozen=True)
class Part:
    """One printed table."""

    caption: str
    frame: pd.DataFrame  # texts
    headers: int  # number of leading columns that name a row
    main: Set[str] = frozenset()  # the columns that a page shows at first and that LaTeX has; empty for all
    best: Set[str] = frozenset()  # the columns whose lowest number is the best one, of each kind of posterior
    folded: bool = False  # whether a page may hide it at first

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[str, str]], headers: int, **options: Any) -> Part:
        """Make a table of rows by column, without empty columns on what may not exist, such as published numbers."""
        frame = pd.DataFrame(list(rows), dtype=object)
        # A difference of two methods that were not run is news; one to a paper that has no number is not.
        may_be_empty = _MAY_BE_EMPTY + (() if "Verdict" in frame else ("difference",))
        empty = [
            name
            for name in frame
            if any(part in str(name).lower() for part in may_be_empty) and frame[name].eq(NOTHING).all()
        ]
        return cls(caption, frame.drop(columns=empty), headers, **options)

    @property
    def names(self) -> list[str]:
        """Name of each column."""
        return list(self.frame.columns)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The texts of each row."""
        return list(self.frame.itertuples(index=False, name=None))

    @cached_property
    def more(self) -> list[bool]:
        """By column, whether it is shown on demand alone; what names a row is always shown."""
        last = self.headers - 1
        return [bool(self.main) and place != last and name not in self.main for place, name in enumerate(self.names)]

    @cached_property
    def numeric(self) -> list[bool]:
        """By column, whether it has numbers."""
        return [any(not math.isnan(_value(text)) for text in column) for column in zip(*self.rows, strict=True)]

    @property
    def marked(self) -> list[list[bool]]:
        """By row and column, whether the number is the best one of its kind of posterior."""
        values = self.frame.map(_value).astype(float)
        groups = values.groupby([str(row[0]) if self.headers > 1 else "" for row in self.rows])
        chosen = np.array([name in self.best for name in self.names], dtype=bool)
        best = values.eq(groups.transform("min")) & (groups.transform("count") > 1) & chosen
        found: list[list[bool]] = best.to_numpy().tolist()
        return found

    @property
    def entries(self) -> Iterator[list[tuple[str, str, int]]]:
        """Yield each row as texts with their classes and the digits that each lacks to the longest of its column."""
        longest = [max(map(_fraction, column)) for column in zip(*self.rows, strict=True)]
        for row, marked in zip(self.rows, self.marked, strict=True):
            entries = []
            for place, (name, text) in enumerate(zip(self.names, row, strict=True)):
                classes = {
                    "more": self.more[place],
                    "number": self.numeric[place],
                    "best": marked[place],
                    "name": place == self.headers - 1,
                    "words": name.endswith(("Status", "Marks")),
                    f"verdict {VERDICTS.get(text)}": text in VERDICTS,
                }
                own = _fraction(text)
                lacks = longest[place] - own + (not own and longest[place] > 0)
                entries.append((text, " ".join(name for name, applies in classes.items() if applies), lacks))
            yield entries


def _value(text: str) -> float:
    value: float = getattr(text, "value", math.nan)
    return float(text) if text.isdigit() else value


def _fraction(text: str) -> int:
    """Return the number of characters behind the point of a number; 0 for other texts, such as intervals."""
    plain = not math.isnan(_value(text)) and not text.startswith("[")
    return len(text.partition(" ")[0].partition(".")[2]) if plain else 0


@dataclass(frozen=True)
class Table:
    """A table of the report: its numbers for programs, its parts for people."""

    name: str  # stem of its files
    title: str
    notes: tuple[str, ...]  # preset, data, split, units and caveats of its numbers
    data: pd.DataFrame
    parts: tuple[Part, ...]


def markdown(table: Table) -> str:
    """Return a table as a Markdown document, its column groups written into the column names."""
    lines = [f"# {table.title}", "", *(f"{note}\n" for note in table.notes)]
    for part in table.parts:
        rows = [part.names, ["---"] * len(part.names), *part.rows]
        escaped = ([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows)
        lines += [part.caption, "", *(f"| {' | '.join(row)} |" for row in escaped), ""]
    return "\n".join(lines)


def latex(table: Table) -> str:
    """Return the main columns of a table as LaTeX, with the rules of booktabs and the best numbers in bold."""
    lines = [f"% {table.title}. Preamble: \\usepackage{{booktabs}}"]
    for part in table.parts:
        shown = [name for name, more in zip(part.names, part.more, strict=True) if not more]
        frame, bold = part.frame[shown], pd.DataFrame(part.marked, columns=part.names)[shown]
        style = frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
        style = style.apply(lambda _, bold=bold: bold.map(lambda best: "textbf:--rwrap;" if best else ""), axis=None)
        columns = "l" + "r" * (len(shown) - 1)
        caption = part.caption.translate({ord(sign): f"\\{sign}" for sign in "&%#_"})
        lines.append(style.to_latex(hrules=True, column_format=columns, caption=caption, position_float="centering"))
    text = "\n".join(lines)
    for sign, command in {"−": "$-$", "–": "--", "±": r"$\pm$", "<": "$<$", ">": "$>$"}.items():
        text = text.replace(sign, command)
    return text


def grouped(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Yield groups of rows by text columns, in order of appearance; an empty frame, without columns, has none."""
    if len(frame):
        for values, rows in frame.groupby(list(keys), sort=False):
            yield tuple(map(str, values)), rows


def facts(data: pd.DataFrame, context: Context) -> list[str]:
    """Return notes on preset and protocol, and on each data set: digest, split, size, a uniform model's bound."""
    protocols = [value for value in data["protocol"] if value] if len(data) else []
    lines = [f"Preset {context.preset}, protocol {described(protocols) or context.protocol}."]
    texts = {"data_sha256": "sha256 {}", "split": "{} split", "images": "{} images"}
    texts |= {"samples": "{} samples per image", "draws": "{} draws"}
    for (dataset,), rows in grouped(data, "dataset"):
        columns = {column: rows[column][rows[column] != ""] for column in texts if column in rows}
        made = [texts[column].format(described(list(values))) for column, values in columns.items() if len(values)]
        if levels := context.datasets.get(dataset, {}).get("levels"):
            made.append(f"a uniform model has {math.log2(levels):.3f} bits/dim")
        version = context.datasets.get(dataset, {}).get("version")
        about = f"{context.title(dataset)} ({dataset}{f'; {version}' if version else ''})"
        lines.append(f"Data set {about}: {', '.join(made) or 'nothing measured'}.")
    return lines
