"""The report as one offline HTML page.

Its script sorts tables and draws interactive charts; without it the page shows the same, its charts as pictures.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
import pandas as pd
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.colors import to_hex

from silent_study.paper import PUBLISHED_MSE
from silent_study.report import printed, tables
from silent_study.report.cells import COLLAPSED_KL, Cell, Context, Record, by_cell, device, revision, run_status
from silent_study.report.claims import Claim, headline
from silent_study.report.drawings import WIDTHS, Drawing
from silent_study.report.grids import GridPoint, grid_maps
from silent_study.report.orderings import labels
from silent_study.report.pictures import SCALES
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Table, Text, named, number
from silent_study.report.statistics import summarize
from silent_study.settings import EXPERIMENTS, FLATTENED_TOLERANCE
from silent_study.words import counted

# What may stand in a quoted attribute's data address, besides letters and digits.
_AS_IT_IS = " !$&'()*+,-./:;=?@_~"
_TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
# What the bundle of Vega-Embed consists of; Snakemake ships the same libraries with their licences.
_LIBRARIES = ("vega", "d3-", "topojson")
# Section of the page with the reported numbers of an experiment of the paper.
_SECTIONS = {"fixed": "table-2-fixed-variance", "learnable": "table-3-bits-per-dimension"}

Facts = tuple[tuple[str, str], ...]  # pairs of a name and a text


def render(
    cells: Sequence[Cell],
    claims: Sequence[Claim],
    laid_out: Sequence[Table],
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
    of_cells = by_cell(records)
    runs = [run for members in of_cells.values() for run in members]
    pages = [cell_page(cell, of_cells.get(cell.name, ())) for cell in cells]
    anchors = {page.cell.name for page in pages} | {run.name for page in pages for run, _, _ in page.runs}
    maps = groupby(grid_maps(points, context), key=lambda grid: grid.group)
    return _template("report.html.j2").render(
        context=context,
        changed=[f"{named(name)} = {value}" for name, value in sorted(context.overrides.items())],
        headline=headline(claims),
        cells=cells,
        measured=[cell for cell in cells if cell.evaluated],
        unmeasured=[cell for cell in cells if not cell.evaluated],
        unequal=list(dict.fromkeys(" and ".join(labels(claim)) for claim in claims if any(claim.steps))),
        flagged=[cell for cell in cells if cell.evaluated and cell.status != "complete"],
        title=lambda cell: f"{cell.method.label}, {context.group(cell.dataset, cell.experiment)}",
        tolerance=FLATTENED_TOLERANCE,
        collapsed_kl=f"{COLLAPSED_KL:g}",
        tables=[table for table in laid_out if table.name != "grid"],
        grids=[table for table in laid_out if table.name == "grid"],
        files={table.name: _downloads(table.name, files) for table in laid_out},
        anchors=anchors,
        maps={group: list(members) for group, members in maps},
        run_status=run_status,
        pages=pages,
        forest=next((drawing for drawing in drawings if drawing.name == "forest"), None),
        drawings=[drawing for drawing in drawings if drawing.name != "forest"],
        widths=WIDTHS,
        svg=lambda drawing, *ending: f"data:image/svg+xml,{quote(drawing.embedded(*ending), safe=_AS_IT_IS)}",
        viewers={drawing.name: _viewer(drawing) for drawing in drawings if drawing.strips},
        libraries=chart_libraries() if any(drawing.chart for drawing in drawings) else "",
        home=lambda cell: _SECTIONS.get(cell.experiment, EXPERIMENTS[cell.experiment].title.replace(" ", "-")),
        runs=runs,
        provenance=list(_about_runs(runs, context)),
        revisions=sorted(Counter(map(revision, runs)).items(), key=lambda entry: (-entry[1], entry[0])),
    )


def render_table(table: Table) -> str:
    """Return one table as a page of its own, without links: their targets are on the whole page."""
    return _template("table.html.j2").render(table=table, anchors=())


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


def _downloads(name: str, files: Mapping[str, str]) -> dict[str, str]:
    """Return data addresses of the files of a table by ending."""
    return {
        ending: f"data:{kind};charset=utf-8,{quote(text, safe=_AS_IT_IS)}"
        for ending, kind in _TYPES.items()
        if (text := files.get(f"tables/{name}.{ending}"))
    }


def _viewer(drawing: Drawing) -> dict[str, Any]:
    """Return a drawing's images by method, with the share of the width that each row takes, and its colour scales."""
    methods: dict[str, list[tuple[str, str, float]]] = {}
    scales: dict[str, tuple[str, str, str]] = {}
    most = max(len(strip.images) for strip in drawing.strips)
    for strip in drawing.strips:
        image = f"data:image/webp;base64,{base64.b64encode(strip.webp()).decode()}"
        methods.setdefault(strip.method, []).append((strip.kind, image, round(100 * len(strip.images) / most, 1)))
        if strip.kind in SCALES:
            colours = map(to_hex, mpl.colormaps[SCALES[strip.kind]](np.linspace(0, 1, 16)))
            low = number(-strip.limit, 2) if strip.kind == "difference" else "0"
            scales[strip.kind] = low, number(strip.limit, 2), ", ".join(colours)
    return {"methods": methods, "scales": scales}


@dataclass(frozen=True)
class CellPage:
    """One cell of the plan."""

    cell: Cell
    bpd: str  # mean and interval
    settings: Facts  # those that all of its runs share
    table: Part  # a row for each run, of the selection split where it was not evaluated on the report split
    runs: tuple[tuple[Record, str, Facts], ...]  # each with the settings in which it differs, and all that is known


def cell_page(cell: Cell, runs: Sequence[Record]) -> CellPage:
    """Return the page of a cell with its runs of every round."""
    settings = {run.name: {name: printed.setting(value) for name, value in tables.leaves(run.settings)} for run in runs}
    names = dict.fromkeys(name for values in settings.values() for name in values)
    differing = [name for name in names if len({values.get(name) for values in settings.values()}) > 1]
    # The seed is each run's own, even if there is a single run.
    own = list(dict.fromkeys(["seed", *differing]))
    reported = {run.name for run in cell.runs}
    pages, rows = [], []
    for run in sorted(runs, key=lambda run: (run.name not in reported, run.seed, run.name)):
        measured = run.metrics("report") or run.metrics("selection")
        facts = [(printed.named(name), settings[run.name].get(name, NOTHING)) for name in own]
        title = ", ".join(map(" ".join, facts))
        pages.append((run, title, (*facts, *_known(run, measured))))
        rows.append(
            {
                "Run": Text(title, run.name),
                "Reported": "yes" if run.name in reported else "grid alone",
                "BPD": number(tables.number(measured.get("bpd"))),
                "KL": number(tables.number(measured.get("kl")), 2),
                METRIC_LABELS[PUBLISHED_MSE]: number(tables.number(measured.get(PUBLISHED_MSE))),
                "Split": str(measured.get("split", NOTHING)),
                "Status": run_status(run),
            }
        )
    bpd = summarize(list(cell.values("bpd").values()))
    bounds = "(one seed)" if bpd.n == 1 else printed.interval(bpd.low, bpd.high, bpd.n)
    return CellPage(
        cell,
        f"BPD {number(bpd.mean)} {bounds}" if bpd.n else "",
        tuple((printed.named(name), next(iter(settings.values()))[name]) for name in names if name not in own),
        Part.of("Runs", rows, headers=1),
        tuple(pages),
    )


def _known(run: Record, measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the results of a run and what made it, as pairs of a name and a text."""
    for name, value in measured.items():
        if value is not None and not isinstance(value, Mapping | list):
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            yield METRIC_LABELS.get(name, name.replace("_", " ")), text
    made = run.provenance
    speed, versions = made.get("images_per_second"), made.get("versions") or {}
    facts = {
        "epochs": run.result["epochs"],
        METRIC_LABELS["epochs_to_threshold"]: run.result["epochs_to_threshold"],
        "sha256 of the result": run.identity["result_sha256"],
        "device": device(run),
        "seconds of training": f"{made['seconds']:.1f}",
        "images per second": f"{speed:.0f}" if speed else "",
        "started": made.get("started"),
        "source revision": revision(run),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
    }
    yield from ((name, str(text)) for name, text in facts.items() if text not in (None, ""))


def _about_runs(runs: Sequence[Record], context: Context) -> Iterator[tuple[str, str]]:
    """Yield what the numbers were made from and on, as pairs of a name and a text."""
    for dataset, members in groupby(runs, key=lambda run: run.dataset):
        data = [run.settings["data"] for run in members]
        version = context.datasets.get(dataset, {}).get("version")
        digests = " / ".join(sorted({settings["sha256"] for settings in data}))
        shape = " x ".join(map(str, data[-1]["shape"]))
        known = f"{version}; " if version else ""
        text = f"{known}sha256 {digests}, images {shape}, {data[-1]['levels']} levels"
        yield f"Data set {context.title(dataset)}", text
    made = pd.DataFrame({"device": device(run), "hours": run.provenance["seconds"] / 3600} for run in runs)
    for name, spent in made.groupby("device")["hours"].sum().items() if runs else ():
        yield f"Hours of training on {name}", f"{spent:.2f} ({60 * spent:.1f} minutes), summed over runs"
    versions = pd.DataFrame([run.provenance.get("versions") or {} for run in runs]).sort_index(axis=1)
    if len(versions.columns):
        found = ((package, sorted(map(str, column.dropna().unique()))) for package, column in versions.items())
        yield "Versions", ", ".join(f"{package} {' / '.join(each)}" for package, each in found)
    if runs:
        yield "Numerics version", " / ".join(sorted({str(run.identity.get("numerics_version")) for run in runs}))
    if started := sorted(str(run.provenance["started"]) for run in runs if run.provenance.get("started")):
        yield "Runs started", f"{started[0]} to {started[-1]}"
    if context.revision:
        yield "Gathered by source revision", context.revision
    tried = [entry.get("configurations") or 0 for entry in context.selections.values()]
    if any(tried):
        yield "Configurations tried", f"{sum(tried)} in {len(tried)} cells"
