"""The differences of two revisions as a page."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from silent_study.methods import METHODS
from silent_study.report import printed, tables
from silent_study.report.cells import rank
from silent_study.report.page import render_table
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Table, number
from silent_study.settings import EXPERIMENTS
from silent_study.store.files import write_text_atomically
from silent_study.store.runs import StoreError, read_json

METRICS = "metrics.json"
_COMPARED = ("bpd", "kl", "mse")


def write_against(revision: str, results: Path) -> Path:
    """Write the page of differences between the metrics of the working tree and of a revision; return its path.

    Raises:
        StoreError: The working tree or the revision has no metrics.
    """
    here = results / METRICS
    if not here.is_file():
        raise StoreError(f"{here}: not written yet; run: snakemake --cores all --resources gpu=8 all")
    table = against(read_json(here), _at(revision, here), revision)
    path = results / f"against-{revision.replace('/', '-')}.html"
    write_text_atomically(path, render_table(table))
    return path


def against(here: dict[str, Any], there: dict[str, Any], revision: str) -> Table:
    """Return the differences of two trees of metrics (``tables.metrics``) per cell, a part for each experiment."""
    ours, theirs = dict(_cells(here)), dict(_cells(there))
    groups: dict[str, list[dict[str, str]]] = {}
    rows = []
    names = ours.keys() | theirs.keys()
    # A revision may have other experiments and methods.
    known = sorted((name for name in names if name.split("/")[2] in METHODS.get(name.split("/")[1], ())), key=rank)
    for name in [*known, *sorted(names.difference(known))]:
        dataset, experiment, method = name.split("/")
        one, other = ours.get(name, {}), theirs.get(name, {})
        label = METHODS[experiment][method].label if name in known else method
        row: dict[str, str] = {"Method": label}
        for metric in _COMPARED:
            values = [tables.number(cell.get(metric)) for cell in (one, other)]
            found = {"here": values[0], revision: values[1], "change": values[0] - values[1]}
            rows.append({"cell": name, "metric": metric, **found})
            for column, value in found.items():
                text = number(value, printed.DIGITS.get(metric, 3), sign=column == "change")
                row[f"{METRIC_LABELS.get(metric, 'MSE')} {column}"] = text
        row |= {f"Seeds {at}": str(cell.get("seeds", NOTHING)) for at, cell in (("here", one), (revision, other))}
        title = EXPERIMENTS[experiment].title if experiment in EXPERIMENTS else experiment
        groups.setdefault(f"{dataset}, {title}", []).append(row)
    parts = tuple(Part.of(caption, lines, headers=1) for caption, lines in groups.items())
    presets = ["preset {preset}, protocol {protocol}".format_map(tree) for tree in (here, there)]
    notes = (
        f"Means over seeds of results/{METRICS} in the working tree and in {revision}; change: here minus there.",
        f"Here: {presets[0]}. {revision}: {presets[1]}.",
    )
    return Table("against", f"Against {revision}", notes, pd.DataFrame(rows), parts)


def _cells(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for dataset, experiments in tree.items():
        for experiment, methods in experiments.items() if isinstance(experiments, dict) else ():
            for method, metrics in methods.items():
                yield f"{dataset}/{experiment}/{method}", metrics


def _at(revision: str, path: Path) -> dict[str, Any]:
    """Return a file of JSON as a revision of git has it."""
    shown = subprocess.run(
        ["git", "show", f"{revision}:./{os.path.relpath(path)}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise StoreError(f"--against {revision}: git has no {path} there: {shown.stderr.strip()}")
    document: dict[str, Any] = json.loads(shown.stdout)
    return document
