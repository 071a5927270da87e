"""From runs to everything that the project shows of them, written so that a reader never sees half a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from silent_gradients.files import write_bytes_atomically, write_text_atomically
from silent_gradients.report import figures, layout, page, tables
from silent_gradients.report.claims import claims
from silent_gradients.report.records import Context, Record
from silent_gradients.report.summary import cells


def gather(records: Sequence[Record], context: Context, out: Path) -> None:
    """Write the tables, figures, metrics and the page of a plan's runs.

    Makes ``tables/*.csv`` and ``*.md``, ``figures/*``, ``metrics.json``, ``runs.csv``, ``curves.csv`` and, last,
    ``report.html``. The same runs give the same bytes. Tables and figures of an earlier gathering that are not made
    again are removed from those two folders.

    Args:
        records: Runs by round, in any order; ``records.load`` reads them.
        context: The plan that they were made for.
        out: The folder to write to, ``results`` in a repository in use.

    Raises:
        OSError: The folder cannot be written to.
    """
    # Packs and rounds finish in any order; nothing that is written may depend on it.
    records = sorted(records, key=lambda record: (record.round, record.name))
    found = cells(records, context)
    orderings = claims(found)
    laid_out = layout.layout(found, orderings, records, context)
    drawings = figures.draw(found, context)
    runs = tables.runs(records)

    written = set()
    for table in laid_out:
        for path, text in (
            (out / "tables" / f"{table.name}.csv", _csv(table.data)),
            (out / "tables" / f"{table.name}.md", layout.markdown(table)),
        ):
            write_text_atomically(path, text)
            written.add(path)
    for drawing in drawings:
        path = out / "figures" / drawing.name
        write_bytes_atomically(path, drawing.data)
        written.add(path)
    for folder, endings in (("tables", (".csv", ".md")), ("figures", (".png", ".svg"))):
        for path in sorted((out / folder).glob("*")):
            if path.suffix in endings and path not in written:
                path.unlink()
    (out / "figures").mkdir(parents=True, exist_ok=True)
    write_text_atomically(
        out / "metrics.json",
        json.dumps(tables.metrics(found, context), sort_keys=True, indent=1, allow_nan=False) + "\n",
    )
    write_text_atomically(out / "runs.csv", _csv(runs))
    write_text_atomically(out / "curves.csv", _csv(tables.curves(records)))
    write_text_atomically(out / "report.html", page.render(found, orderings, laid_out, drawings, records, context))


def _csv(frame: pd.DataFrame) -> str:
    # Nine digits keep all that a float32 evaluation knows and make differences of two tables readable.
    text: str = frame.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    return text
