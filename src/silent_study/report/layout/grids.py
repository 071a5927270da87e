"""Every configuration that was tried."""

from __future__ import annotations

import math
from collections.abc import Sequence

from silent_study.methods import METHODS
from silent_study.report import tables
from silent_study.report.context import Context, Record
from silent_study.report.layout.notes import facts
from silent_study.report.layout.printed import Linked, Part, Table, as_rows, group_name, grouped
from silent_study.report.layout.text import NOTHING, monte_carlo, number


def grid(records: Sequence[Record], context: Context) -> Table:
    """Every configuration of the grids, best first."""
    data = tables.grid(records, context)
    parts = []
    for (dataset, experiment), group in grouped(data, "dataset", "experiment"):
        rows = [
            {
                "Method": METHODS[experiment][row["method"]].label,
                "Point": row["point"] or "the only one",
                "Selected": "selected" if row["selected"] else "",
                "BPD": Linked(number(row["selection_bpd"]), row["name"]),
                "Monte-Carlo error": monte_carlo(row["monte_carlo_error"]),
                "KL": Linked(number(row["selection_kl"], 2), row["name"]),
                "Split": row["split"] or NOTHING,
                "Seed": str(row["seed"]),
                "Epochs": str(row["epochs"]),
                "Status": row["status"] if math.isfinite(row["selection_bpd"]) else Linked(row["status"], row["name"]),
            }
            for row in as_rows(group)
        ]
        caption = f"{group_name(dataset, experiment, context)}: grid of {len(rows)} runs"
        parts.append(Part.of(caption, rows, 2, folded=True))
    notes = (
        *facts(data, context),
        "Every configuration that was tried, best first by the BPD on the selection split; one seed each.",
    )
    return Table("grid", "Hyperparameter grids", notes, data, tuple(parts))
