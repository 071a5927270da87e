"""The report as one offline HTML page.

Its script sorts, filters and draws interactive charts; without it the page shows the same, its charts as pictures.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from PIL import Image

from silent_study.report.cells import COLLAPSED_KL, Cell, device, each_once, revision, run_status
from silent_study.report.claims import VERDICTS, Claim, headline
from silent_study.report.context import Context, Record
from silent_study.report.drawings import WIDTHS, Drawing
from silent_study.report.figures import run_chart, run_curve
from silent_study.report.grids import GridPoint, grid_maps
from silent_study.report.orderings import labels
from silent_study.report.pictures import SCALES
from silent_study.report.printed import Table, group_name, named
from silent_study.report.runs_pages import cell_pages
from silent_study.settings import FLATTENED_TOLERANCE
from silent_study.words import counted

# What may stand in a quoted attribute's data address, besides letters and digits.
_AS_IT_IS = " !$&'()*+,-./:;=?@_~"
_TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
# What the bundle of Vega-Embed consists of; Snakemake ships the same libraries with their licences.
_LIBRARIES = ("vega", "d3-", "topojson")


def render(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    tables: Sequence[Table],
    files: Mapping[str, str],
    drawings: Sequence[Drawing],
    points: Sequence[GridPoint],
    records: Sequence[Record],
    context: Context,
) -> str:
    """Return the page as HTML with everything in it: styles, figures, tables to save, scripts.

    Tables and drawings are in the page's order; ``files`` are those of the tables by name, ``records`` the runs of
    every round.
    """
    runs = each_once(records)
    pages = cell_pages(cells, claims, records, context)
    anchors = {page.cell.name for page in pages} | {run.record.name for page in pages for run in page.runs}
    maps = groupby(grid_maps(points, context), key=lambda grid: grid.group)
    curves = {run.name: curve for run in runs if (curve := run_curve(run.curve))}
    return _template("report.html.j2").render(
        context=context,
        changed=[f"{named(name)} = {value}" for name, value in sorted(context.overrides.items())],
        headline=headline(claims),
        verdicts=VERDICTS,
        cells=cells,
        measured=[cell for cell in cells if cell.evaluated],
        unmeasured=[cell for cell in cells if not cell.evaluated],
        unequal=list(dict.fromkeys(" and ".join(labels(claim)) for claim in claims if any(claim.steps))),
        flagged=[cell for cell in cells if cell.evaluated and cell.status != "complete"],
        title=lambda cell: f"{cell.method.label}, {group_name(cell.dataset, cell.experiment, context)}",
        tolerance=FLATTENED_TOLERANCE,
        collapsed_kl=f"{COLLAPSED_KL:g}",
        tables=[table for table in tables if table.name != "grid"],
        grids=[table for table in tables if table.name == "grid"],
        files={table.name: list(_downloads(table.name, files)) for table in tables},
        anchors=anchors,
        maps={group: list(members) for group, members in maps},
        run_status=run_status,
        pages=pages,
        forest=next((drawing for drawing in drawings if drawing.name == "forest"), None),
        drawings=[drawing for drawing in drawings if drawing.name != "forest"],
        widths=WIDTHS,
        svg=lambda drawing, *ending: f"data:image/svg+xml,{quote(drawing.embedded(*ending), safe=_AS_IT_IS)}",
        charts={drawing.name for drawing in drawings if drawing.chart},
        viewers={drawing.name: _viewer(drawing) for drawing in drawings if drawing.strips},
        curves=curves,
        run_chart=run_chart(),
        libraries=chart_libraries() if curves else "",
        diverged=[run for run in runs if run.diverged],
        runs=len(runs),
        provenance=list(_about_runs(runs, context)),
        revisions=sorted(Counter(map(revision, runs)).items(), key=lambda entry: (-entry[1], entry[0])),
    )


def render_table(table: Table) -> str:
    """Return one table as a page of its own, without links: their targets are on the whole page."""
    return _template("table.html.j2").render(table=table, verdicts=VERDICTS, anchors=())


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"counted": counted, "named": named}
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":")}
    return environment.get_template(name)


@cache
def chart_libraries() -> str:
    """Return Vega-Embed with all that it needs as one script, headed by the licences; it adds ``vegaEmbed`` alone."""
    folders = sorted(resources.files("snakemake.assets").joinpath("data").iterdir(), key=lambda folder: folder.name)
    licences: dict[str, list[str]] = {}
    for folder in folders:
        if folder.name.startswith(_LIBRARIES):
            licences.setdefault(folder.joinpath("LICENSE").read_text().strip(), []).append(folder.name)
    notices = "\n\n".join(f"{', '.join(names)}:\n{text}" for text, names in licences.items())
    script = f"/*!\n{notices}\n*/\n(() => {{\n{vl_convert.javascript_bundle('window.vegaEmbed = vegaEmbed;')}\n}})();"
    return script.replace("</script", "<\\/script")


def _downloads(name: str, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the files of a table as endings and data addresses."""
    for ending, kind in _TYPES.items():
        if text := files.get(f"tables/{name}.{ending}"):
            yield ending, f"data:{kind};charset=utf-8,{quote(text, safe=_AS_IT_IS)}"


def _viewer(drawing: Drawing) -> dict[str, Any]:
    """Return a drawing's images by method, with the share of the width that each row takes, and its colour scales."""
    methods: dict[str, list[tuple[str, str, float]]] = {}
    scales: dict[str, tuple[str, str, str, str]] = {}
    most = max(len(strip.images) for strip in drawing.strips)
    for strip in drawing.strips:
        image = _address(strip.webp(), "webp")
        methods.setdefault(strip.method, []).append((strip.kind, image, round(100 * len(strip.images) / most, 1)))
        if strip.kind in SCALES:
            low = f"{-strip.limit:.2f}".replace("-", "−") if strip.kind == "difference" else "0"
            scales[strip.kind] = (strip.kind, low, f"{strip.limit:.2f}", _scale(SCALES[strip.kind]))
    return {"methods": methods, "scales": list(scales.values())}


def _scale(colours: str) -> str:
    buffer = io.BytesIO()
    values = mpl.colormaps[colours](np.linspace(0, 1, 64))[None, :, :3]
    Image.fromarray((255 * values).round().astype(np.uint8)).save(buffer, "PNG")
    return _address(buffer.getvalue(), "png")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _about_runs(runs: Sequence[Record], context: Context) -> Iterator[tuple[str, str]]:
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
