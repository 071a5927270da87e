"""The report as one offline HTML page: verdicts first, then tables, figures and the origin of every number.

Its script sorts, filters and unfolds; without it the page shows the same.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from silent_study.report.cells import COLLAPSED_KL, Cell, device, each_once, revision, run_status
from silent_study.report.charts import SIDE, matplotlib_defaults
from silent_study.report.claims import DECIDED, PRIMARY, VERDICTS, Claim
from silent_study.report.context import Context, Record
from silent_study.report.figures import Drawing
from silent_study.report.grids import GridPoint, grid_maps
from silent_study.report.orderings import collapses, labels
from silent_study.report.printed import Table, group_name, interval, number
from silent_study.report.runs_pages import cell_pages
from silent_study.settings import FLATTENED_TOLERANCE

# What may stand in a quoted attribute's data address, besides letters and digits.
_AS_IT_IS = " !$&'()*+,-./:;=?@_~"


@matplotlib_defaults({})
def render(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    points: Sequence[GridPoint],
    records: Sequence[Record],
    context: Context,
) -> str:
    """Return the page as HTML with everything in it: styles, figures and its one script.

    Tables and drawings are in the page's order; ``records`` are the runs of every round.
    """
    runs = each_once(records)
    pages = cell_pages(cells, claims, records, context)
    anchors = {page.cell.name for page in pages} | {run.record.name for page in pages for run in page.runs}
    maps = groupby(grid_maps(points, context), key=lambda grid: grid.group)
    families = {name: _family(claims, name) for name in dict.fromkeys(claim.family for claim in claims)}
    shown = [verdict for verdict in VERDICTS if any(counts[verdict] for counts, _ in families.values())]
    primary, _ = _family(claims, PRIMARY)
    return _template("report.html.j2").render(
        context=context,
        verdicts=VERDICTS,
        shown=shown,
        families=families,
        primary=[(verdict, primary[verdict]) for verdict in shown if primary[verdict]],
        headlines=list(_headlines(claims, context)),
        cells=cells,
        measured=[cell for cell in cells if cell.evaluated],
        unmeasured=[cell for cell in cells if not cell.evaluated],
        unequal=list(dict.fromkeys(" and ".join(labels(claim)) for claim in claims if any(claim.steps))),
        flagged=[cell for cell in cells if cell.evaluated and cell.status != "complete"],
        tolerance=FLATTENED_TOLERANCE,
        collapsed_kl=f"{COLLAPSED_KL:g}",
        tables=[table for table in tables if table.name != "grid"],
        grids=[table for table in tables if table.name == "grid"],
        anchors=anchors,
        maps={group: list(members) for group, members in maps},
        run_status=run_status,
        pages=pages,
        side=SIDE,
        drawings=[(drawing, _source(drawing)) for drawing in drawings],
        diverged=[run for run in runs if run.diverged],
        runs=len(runs),
        provenance=list(_provenance(runs, context)),
        revisions=sorted(Counter(map(revision, runs)).items(), key=lambda entry: (-entry[1], entry[0])),
    )


def render_table(table: Table) -> str:
    """Return one table as a page of its own, without links: their targets are on the whole page."""
    return _template("table.html.j2").render(table=table, verdicts=VERDICTS, anchors=())


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _family(claims: Sequence[Claim], name: str) -> tuple[Counter[str], int]:
    """Return the verdicts of a family of claims by number, and how many stand after the correction."""
    members = [claim for claim in claims if claim.family == name]
    return Counter(claim.verdict for claim in members), sum(claim.survives for claim in members)


def _headlines(claims: Sequence[Claim], context: Context) -> Iterator[str]:
    """Yield the result of each ordering of the primary family in words, decided ones first."""
    found = [claim for claim in claims if claim.family == PRIMARY and claim.difference.n > 1]
    for claim in sorted(found, key=lambda claim: list(VERDICTS).index(claim.verdict)):
        mean, low, high = claim.difference.mean, claim.difference.low, claim.difference.high
        size = claim.published_difference
        known = "" if math.isnan(size) else f"paper {number(size, sign=True)}; "
        lost = collapses(claim)
        yield (
            f"{' minus '.join(labels(claim))}: {number(mean, sign=True)} {interval(low, high, 2, sign=True)} bits/dim "
            f"({known}{group_name(claim.first.dataset, claim.first.experiment, context)}): {claim.verdict}"
            f"{'' if claim.survives or claim.verdict not in DECIDED else ', not after Holm'}"
            f"{f'; collapsed {lost}' if lost else ''}"
        )


def _source(drawing: Drawing) -> str:
    # SVG as text is a quarter shorter than in base 64.
    if drawing.name.endswith(".svg"):
        return f"data:image/svg+xml,{quote(drawing.data, safe=_AS_IT_IS)}"
    return f"data:image/png;base64,{base64.b64encode(drawing.data).decode()}"


def _provenance(runs: Sequence[Record], context: Context) -> Iterator[tuple[str, str]]:
    """Yield what the numbers were made from and on, as pairs of a name and a text."""
    yield from (("Preset", context.preset), ("Protocol", context.protocol))
    if context.overrides:
        changed = ", ".join(f"{name} = {value}" for name, value in sorted(context.overrides.items()))
        yield "Changed from the preset", changed
    for dataset, members in groupby(runs, key=lambda run: run.dataset):
        data = [run.settings["data"] for run in members]
        version = context.datasets.get(dataset, {}).get("version")
        digests = " / ".join(sorted({settings["sha256"] for settings in data}))
        shape = " x ".join(map(str, data[-1]["shape"]))
        known = f"{version}; " if version else ""
        text = f"{known}sha256 {digests}, images {shape}, {data[-1]['levels']} levels"
        yield f"Data set {context.title(dataset)}", text
    hours: dict[str, float] = {}
    versions: dict[str, set[str]] = {}
    for run in runs:
        hours[device(run)] = hours.get(device(run), 0.0) + run.provenance["seconds"] / 3600
        for package, version in (run.provenance.get("versions") or {}).items():
            versions.setdefault(package, set()).add(str(version))
    for name, spent in sorted(hours.items()):
        yield f"Hours of training on {name}", f"{spent:.2f} ({60 * spent:.1f} minutes), summed over runs"
    if versions:
        listed = ", ".join(f"{package} {' / '.join(sorted(found))}" for package, found in sorted(versions.items()))
        yield "Versions", listed
    if runs:
        yield "Numerics version", " / ".join(sorted({str(run.identity.get("numerics_version")) for run in runs}))
    started = sorted(str(run.provenance["started"]) for run in runs if run.provenance.get("started"))
    if started:
        yield "Runs started", f"{started[0]} to {started[-1]}"
    if context.revision:
        yield "Gathered by source revision", context.revision
    tried = [entry.get("configurations") or 0 for entry in context.selections.values()]
    if any(tried):
        yield "Configurations tried", f"{sum(tried)} in {len(tried)} cells"
