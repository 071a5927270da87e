"""From runs to everything that the project shows of them, written so that a reader never sees half a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from silent_study.report import figures, page, tables
from silent_study.report.claims import claims
from silent_study.report.context import Context, Record
from silent_study.report.layout import layout
from silent_study.report.layout.printed import markdown
from silent_study.report.summary import cells
from silent_study.store.files import write_bytes_atomically, write_text_atomically


def gather(records: Sequence[Record], context: Context, out: Path) -> None:
    """Write the tables, figures, metrics and the page of a plan's runs.

    Makes ``tables/*.csv``, ``*.md`` and ``*.html``, ``figures/*``, ``curves/<cell>.csv``, ``metrics.json``,
    ``runs.csv`` and, last, ``report.html``; a table without rows is in the page alone. The same runs give the same
    bytes. Tables, figures and curves of an earlier gathering that are not made again are removed from those three
    folders.

    Args:
        records: Runs by round, in any order.
        context: The plan that they were made for.
        out: The folder to write to, ``results`` in a repository in use.

    Raises:
        OSError: The folder cannot be written to.
    """
    # Packs and rounds finish in any order; nothing that is written may depend on it.
    records = sorted(records, key=lambda record: (record.round, record.name))
    found = cells(records, context)
    orderings = claims(found)
    laid_out = layout(found, orderings, records, context)
    drawings = figures.draw(found, context)
    runs = tables.runs(records)

    written = set()
    # The page says of a table without rows that it has none; its files would be hard to read.
    for table in (table for table in laid_out if not table.data.empty):
        for path, text in (
            (out / "tables" / f"{table.name}.csv", _csv(table.data)),
            (out / "tables" / f"{table.name}.md", markdown(table)),
            (out / "tables" / f"{table.name}.html", page.render_table(table)),
        ):
            write_text_atomically(path, text)
            written.add(path)
    for drawing in drawings:
        path = out / "figures" / drawing.name
        write_bytes_atomically(path, drawing.data)
        written.add(path)
    for cell, curve in tables.curves(records).items():
        path = out / "curves" / f"{cell}.csv"
        write_text_atomically(path, _csv(curve))
        written.add(path)
    for pattern in (
        "tables/*.csv",
        "tables/*.md",
        "tables/*.html",
        "figures/*.png",
        "figures/*.svg",
        "curves/*/*/*.csv",
    ):
        for path in set(out.glob(pattern)) - written:
            path.unlink()
    for folder in ("tables", "figures", "curves"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_text_atomically(
        out / "metrics.json",
        json.dumps(tables.metrics(found, context), sort_keys=True, indent=1, allow_nan=False) + "\n",
    )
    write_text_atomically(out / "runs.csv", _csv(runs))
    write_text_atomically(out / "report.html", page.render(found, orderings, laid_out, drawings, records, context))


def _csv(frame: pd.DataFrame) -> str:
    # Nine digits keep all that a float32 evaluation knows and make differences of two tables readable.
    text: str = frame.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    return text
