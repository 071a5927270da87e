"""Where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from silent_study.methods import METHODS
from silent_study.report.context import Context, Record
from silent_study.report.layout.printed import Linked, Part, group_name
from silent_study.report.layout.text import NOTHING, number, significant
from silent_study.report.summary import described


def device_time(records: Sequence[Record], context: Context) -> Part | None:
    """Device time by cell, as the runs recorded it: trainings alone, each run of a stack its share."""
    runs: dict[str, dict[str, Record]] = {}
    of_seeds = {record.name for record in records if record.round == "seeds"}
    for record in records:
        runs.setdefault(record.cell, {})[record.name] = record
    spent = {cell: [float(run.provenance["seconds"]) for run in found.values()] for cell, found in runs.items()}
    total = sum(map(sum, spent.values()))
    unit, seconds = ("hours", 3600) if total >= 3 * 3600 else ("minutes", 60)
    rows: list[dict[str, str | Linked]] = []
    for cell in sorted(runs, key=lambda cell: -sum(spent[cell])):
        members = runs[cell].values()
        first = next(iter(members))
        speeds = [speed for run in members if (speed := run.provenance.get("images_per_second"))]
        reported = sum(float(run.provenance["seconds"]) for run in members if run.name in of_seeds)
        rows.append(
            {
                "Cell": f"{METHODS[first.experiment][first.method].label}, "
                f"{group_name(first.dataset, first.experiment, context)}",
                "Trainings": str(len(members)),
                f"Device {unit}": Linked(number(sum(spent[cell]) / seconds, 2), cell),
                "of these reported runs": number(reported / seconds, 2),
                "Share": f"{sum(spent[cell]) / total:.1%}" if total else NOTHING,
                "Images per second, median": significant(median(speeds)) if speeds else NOTHING,
                "Device": described([f"{run.provenance['device']}, {run.provenance['hardware']}" for run in members]),
            }
        )
    caption = f"Device {unit} of training by cell, {number(total / seconds, 2)} in all"
    return Part.of(caption, rows, headers=1) if rows else None
