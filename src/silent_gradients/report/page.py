"""One offline page: the verdict first, then the tables, the figures and where every number comes from."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from silent_gradients.report.claims import Claim
from silent_gradients.report.figures import Drawing
from silent_gradients.report.layout import METRIC_LABELS, Part, Table
from silent_gradients.report.records import Context, Record
from silent_gradients.report.summary import Cell, revision

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
VERDICTS = ("holds", "fails", "undecided", "not measured")


def render(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    records: Sequence[Record],
    context: Context,
) -> str:
    """The page as HTML with everything in it: styles, figures, no script, nothing from elsewhere.

    Args:
        cells: Cells of the plan with the runs of their selected points.
        claims: The orderings that were checked.
        tables: Tables in the page's order.
        drawings: Figures in the page's order.
        records: Every run of every round.
        context: The plan.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    unique = sorted({record.name: record for record in records}.values(), key=lambda record: record.name)
    papers = [claim for claim in claims if claim.of_the_paper]
    verdicts = Counter(claim.verdict for claim in papers)
    ours = Counter(claim.verdict for claim in claims if not claim.of_the_paper)
    by_metric: dict[str, Counter[str]] = {}
    for claim in papers:
        by_metric.setdefault(METRIC_LABELS[claim.metric], Counter())[claim.verdict] += 1
    grid = [table for table in tables if table.name == "grid"]
    return environment.get_template("report.html.j2").render(
        context=context,
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
        by_metric=by_metric,
        claims=len(papers),
        ours={verdict: ours[verdict] for verdict in VERDICTS if ours[verdict]},
        cells=cells,
        measured=[cell for cell in cells if cell.evaluated],
        unmeasured=[cell for cell in cells if not cell.evaluated],
        flagged=[cell for cell in cells if cell.evaluated and cell.status != "complete"],
        tables=[_table(table) for table in tables if table not in grid],
        grids=[_table(table) for table in grid],
        drawings=[_figure(drawing) for drawing in drawings],
        diverged=[record for record in unique if record.diverged],
        runs=len(unique),
        provenance=_provenance(unique, context),
        revisions=_revisions(unique),
    )


def _table(table: Table) -> dict[str, Any]:
    return {"name": table.name, "title": table.title, "notes": table.notes, "parts": [_part(p) for p in table.parts]}


def _part(part: Part) -> dict[str, Any]:
    columns: list[Any] = list(part.frame.columns)
    names = [name if isinstance(name, tuple) else ("", name) for name in columns]
    groups: list[list[Any]] = []
    for group, _ in names:
        if groups and groups[-1][0] == group:
            groups[-1][1] += 1
        else:
            groups.append([group, 1])
    return {
        "caption": part.caption,
        "groups": groups if any(group for group, _ in groups) else [],
        "columns": [name for _, name in names],
        "rows": [list(map(str, row)) for row in part.frame.itertuples(index=False)],
        "headers": part.headers,
        "folded": part.folded,
    }


def _figure(drawing: Drawing) -> dict[str, str]:
    kind = _TYPES[Path(drawing.name).suffix]
    source = f"data:{kind};base64,{base64.b64encode(drawing.data).decode()}"
    return {"title": drawing.title, "description": drawing.description, "source": source, "name": drawing.name}


def _revisions(runs: Iterable[Record]) -> list[tuple[str, int]]:
    return sorted(Counter(map(revision, runs)).items(), key=lambda entry: (-entry[1], entry[0]))


def _provenance(runs: Sequence[Record], context: Context) -> list[tuple[str, str]]:
    """What the numbers were made from and on, as pairs of a name and a text."""
    entries: list[tuple[str, str]] = [("Preset", context.preset), ("Protocol", context.protocol)]
    if context.overrides:
        changed = ", ".join(f"{name} = {value}" for name, value in sorted(context.overrides.items()))
        entries.append(("Changed from the preset", changed))
    data = {record.dataset: record.settings["data"] for record in runs}
    for dataset, settings in sorted(data.items()):
        version = context.datasets.get(dataset, {}).get("version")
        digests = sorted({run.settings["data"]["sha256"] for run in runs if run.dataset == dataset})
        shape = " x ".join(map(str, settings["shape"]))
        known = f"{version}; " if version else ""
        entries.append(
            (
                f"Data set {context.title(dataset)}",
                f"{known}sha256 {' / '.join(digests)}, images {shape}, {settings['levels']} levels",
            )
        )
    hours: dict[str, float] = {}
    for record in runs:
        device = f"{record.provenance['device']}, {record.provenance['hardware']}"
        hours[device] = hours.get(device, 0.0) + float(record.provenance["seconds"]) / 3600
    entries += [
        (f"Hours of training on {device}", f"{spent:.2f}, summed over runs") for device, spent in sorted(hours.items())
    ]
    versions: dict[str, dict[str, None]] = {}
    for record in runs:
        for package, version in (record.provenance.get("versions") or {}).items():
            versions.setdefault(package, {})[str(version)] = None
    if versions:
        listed = ", ".join(f"{package} {' / '.join(sorted(found))}" for package, found in sorted(versions.items()))
        entries.append(("Versions", listed))
    numerics = sorted({str(record.identity.get("numerics_version")) for record in runs})
    if numerics:
        entries.append(("Numerics version", " / ".join(numerics)))
    started = sorted(str(run.provenance["started"]) for run in runs if run.provenance.get("started"))
    if started:
        entries.append(("Runs started", f"{started[0]} to {started[-1]}"))
    if context.revision:
        entries.append(("Gathered by revision", context.revision))
    tried = [entry.get("configurations") for entry in context.selections.values()]
    if any(tried):
        entries.append(("Configurations tried", f"{sum(count or 0 for count in tried)} in {len(tried)} cells"))
    return entries
