"""What stands above a table: data, units, and what its columns are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from silent_study.report import tables
from silent_study.report.context import Context
from silent_study.report.layout.printed import grouped
from silent_study.report.layout.text import NOTHING
from silent_study.report.summary import Cell, described
from silent_study.settings import EXPERIMENTS


def facts(data: pd.DataFrame, context: Context) -> list[str]:
    """Preset and protocol; then for each data set its digest, split, number of images and samples."""
    protocols = [value for value in data["protocol"] if value] if len(data) else []
    lines = [f"Preset {context.preset}, protocol {described(protocols) or context.protocol}."]
    for (dataset,), rows in grouped(data, "dataset"):
        made = []
        for column, text in (
            ("data_sha256", "sha256 {}"),
            ("split", "{} split"),
            ("images", "{} images"),
            ("samples", "{} samples per image"),
            ("draws", "{} draws"),
        ):
            values = [value for value in rows[column] if value != ""] if column in rows else []
            if values:
                made.append(text.format(described(values)))
        version = context.datasets.get(dataset, {}).get("version")
        about = f"{context.title(dataset)} ({dataset}{f'; {version}' if version else ''})"
        lines.append(f"Data set {about}: {', '.join(made) or 'nothing measured'}.")
    return lines


UNITS = (
    "BPD in bits/dim, KL in nats per image, MSE summed over the D pixels on the [0, 1) scale (times 1000 / D: mean per "
    "pixel in thousandths). Means over seeds."
)


ABOUT_FACTOR_ANALYSIS = (
    "a linear mean and a variance per pixel, the same for every image, with the same latent dimension; fitted "
    "to the training images and valued on the report split. A linear decoder whose variance depends on a continuous "
    "code contains it, and should come out no worse; a convolutional one, or one with binary codes, need not."
)


def about_published(data: pd.DataFrame) -> list[str]:
    """What the published values are, or that there are none."""
    if not len(data) or data["published"].isna().all():
        return ["The paper has no numbers for these data sets."]
    return [
        "Published values come from the paper's own, longest training; the epochs of each row say how far this preset "
        "goes. Difference: measured minus published."
    ]


def about_weighted(cells: Sequence[Cell], experiment: str) -> list[str]:
    """What the importance-weighted bounds are, where there are any."""
    if not tables.importance_weighted(cells, experiment):
        return []
    reports = [run.metrics("report") for cell in cells for run in cell.evaluated]
    samples = described([report["importance_samples"] for report in reports if "importance_samples" in report])
    return [
        f"Importance-weighted: the bound of {samples} samples per image (Burda et al. 2016), in expectation no looser "
        "than the evidence lower bound; with its Monte-Carlo error."
    ]


def about_controls(data: pd.DataFrame) -> list[str]:
    """Whose expectation silent baselines and controls take, where there are any."""
    if not len(data) or not data["estimator"].str.contains("silent").any():
        return []
    if not any(EXPERIMENTS[experiment].linear for experiment in data["experiment"]):
        return [
            "Silent baselines and silent controls are those of a guide that trains beside the decoder; it steers the "
            "encoder only in the rows with SG."
        ]
    return [
        "Silent baselines and silent controls are those of the reported decoder itself, whose expectation is known."
    ]


def made_from(row: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The columns on what a number is made from: seeds, epochs, configurations, status."""
    configurations = row["configurations"]
    return {
        ("Runs", "Seeds"): str(row["seeds"]),
        ("Runs", "Epochs"): str(row["epochs"]) or NOTHING,
        ("Runs", "Configurations tried"): NOTHING if pd.isna(configurations) else f"{configurations:.0f}",
        ("Runs", "Status"): str(row["status"]),
    }
