"""One offline page: the verdict first, then the tables, the figures and where every number comes from.

Without its script, which sorts, filters and unfolds, it shows the same.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from silent_study.report.charts import SIDE
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.dossiers import dossiers, pairs
from silent_study.report.figures import Drawing
from silent_study.report.grid_maps import grid_maps
from silent_study.report.layout.device_times import device_time
from silent_study.report.layout.printed import Part, Table, group_name
from silent_study.report.layout.text import METRIC_LABELS, number
from silent_study.report.summary import Cell, revision
from silent_study.settings import EXPERIMENTS, FLATTENED_TOLERANCE

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
# What may stand in a quoted attribute's data address, besides letters and digits.
_AS_IT_IS = " !$&'()*+,-./:;=?@_~"
VERDICTS = ("holds", "fails", "undecided", "not measured")


def render(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    records: Sequence[Record],
    context: Context,
) -> str:
    """The page as HTML with everything in it: styles, figures, its one script, nothing from elsewhere.

    Args:
        cells: Cells of the plan with the runs of their selected points.
        claims: The orderings that were checked.
        tables: Tables in the page's order.
        drawings: Figures in the page's order.
        records: Every run of every round.
        context: The plan.
    """
    unique = sorted({record.name: record for record in records}.values(), key=lambda record: record.name)
    papers = [claim for claim in claims if claim.of_the_paper]
    verdicts = Counter(claim.verdict for claim in papers)
    ours = Counter(claim.verdict for claim in claims if not claim.of_the_paper)
    by_metric: dict[str, Counter[str]] = {}
    for claim in papers:
        by_metric.setdefault(METRIC_LABELS[claim.metric], Counter())[claim.verdict] += 1
    grid = [table for table in tables if table.name == "grid"]
    maps = grid_maps(records, context)
    folders = dossiers(cells, claims, records, context)
    anchors = {folder.cell.name for folder in folders} | {run.name for folder in folders for run in folder.runs}
    time = device_time(records, context)
    return _template("report.html.j2").render(
        context=context,
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS},
        by_metric=by_metric,
        claims=len(papers),
        ours={verdict: ours[verdict] for verdict in VERDICTS if ours[verdict]},
        cells=cells,
        measured=[cell for cell in cells if cell.evaluated],
        unmeasured=[cell for cell in cells if not cell.evaluated],
        flagged=[cell for cell in cells if cell.evaluated and cell.status != "complete"],
        standing={
            papers: sum(claim.survives for claim in claims if claim.of_the_paper == papers) for papers in (True, False)
        },
        pair_counts=_range([claim.difference.n for claim in papers if claim.difference.n > 1]),
        family=sum(not math.isnan(claim.adjusted) for claim in papers),
        tables=[_table(table, anchors) for table in tables if table not in grid],
        headlines=_headlines(papers, context),
        tolerance=FLATTENED_TOLERANCE,
        grids=[_table(table, anchors) for table in grid],
        maps=maps,
        map_groups=list(dict.fromkeys(found.group for found in maps)),
        experiments=EXPERIMENTS,
        pairs=pairs(cells, claims, context),
        dossiers=folders,
        time=None if time is None else _part(time, anchors),
        side=SIDE,
        drawings=[_figure(drawing) for drawing in drawings],
        diverged=[record for record in unique if record.diverged],
        runs=len(unique),
        provenance=_provenance(unique, context),
        revisions=_revisions(unique),
    )


def render_table(table: Table) -> str:
    """One table as a page of its own, without links: what they lead to is on the whole page."""
    return _template("table.html.j2").render(table=_table(table, frozenset()), verdicts=VERDICTS)


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _table(table: Table, anchors: Set[str]) -> dict[str, Any]:
    parts = [_part(part, anchors) for part in table.parts]
    return {"name": table.name, "title": table.title, "notes": table.notes, "parts": parts}


def _part(part: Part, anchors: Set[str]) -> dict[str, Any]:
    """A table for the template; a link leads nowhere but to what the page has."""
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
        "rows": [
            [(str(text), _target(links, column, anchors)) for column, text in zip(columns, row, strict=True)]
            for row, links in zip(part.frame.itertuples(index=False), part.links, strict=True)
        ],
        "headers": part.headers,
        "folded": part.folded,
    }


def _headlines(papers: Sequence[Claim], context: Context) -> list[str]:
    """What came out of each ordering of bits/dim, decided ones first."""
    found = [claim for claim in papers if claim.metric == "bpd" and claim.difference.n > 1]
    texts = []
    for claim in sorted(found, key=lambda claim: VERDICTS.index(claim.verdict)):
        mean, low, high = claim.difference.mean, claim.difference.low, claim.difference.high
        side = "below" if mean < 0 else "above"
        ends = (low, high) if mean >= 0 else (-high, -low)
        texts.append(
            f"{claim.first.method.label} {number(abs(mean))} [{number(ends[0])}, {number(ends[1])}] bits/dim {side} "
            f"{claim.second.method.label} ({group_name(claim.first.dataset, claim.first.experiment, context)}): "
            f"{claim.verdict}{'' if claim.survives or claim.verdict == 'undecided' else ', not after Holm'}"
            f"{'; some runs collapsed' if claim.first.collapsed or claim.second.collapsed else ''}"
        )
    return texts


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts, default=0), max(counts, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _target(links: Mapping[Any, str], column: Any, anchors: Set[str]) -> str:
    target = links.get(column, "")
    return target if target in anchors else ""


def _figure(drawing: Drawing) -> dict[str, str]:
    kind = _TYPES[Path(drawing.name).suffix]
    # Text is a quarter shorter as text.
    text = kind == _TYPES[".svg"]
    data = quote(drawing.data, safe=_AS_IT_IS) if text else base64.b64encode(drawing.data).decode()
    source = f"data:{kind}{',' if text else ';base64,'}{data}"
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
        (f"Hours of training on {device}", f"{spent:.2f} ({60 * spent:.1f} minutes), summed over runs")
        for device, spent in sorted(hours.items())
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
        entries.append(("Gathered by source revision", context.revision))
    tried = [entry.get("configurations") for entry in context.selections.values()]
    if any(tried):
        entries.append(("Configurations tried", f"{sum(count or 0 for count in tried)} in {len(tried)} cells"))
    return entries
