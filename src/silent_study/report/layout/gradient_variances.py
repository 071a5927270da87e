"""Table 1, gradient variance, and its like of the experiment with a log-linear precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from silent_study.methods import METHODS
from silent_study.paper import TABLE_1_NOTE
from silent_study.report import tables
from silent_study.report.context import Context
from silent_study.report.layout.notes import facts
from silent_study.report.layout.printed import Linked, Part, Table, group_name, grouped
from silent_study.report.layout.text import NOTHING, significant
from silent_study.report.summary import Cell
from silent_study.settings import EXPERIMENTS

_REDUCTION_LABELS = {"batch_mean": "batch mean", "per_image_mean": "per-image mean"}


ABOUT_GRADIENT_VARIANCE = (
    "Variance of the gradient with respect to the encoder's parameters when only the code is drawn again, summed over "
    "parameters, of the reconstruction loss in nats; mean over seeds. Batch mean: gradient of the loss averaged over "
    "the images. Per-image mean: each image's own variance, then averaged."
)


def table_1(cells: Sequence[Cell], context: Context) -> Table:
    """Table 1, and the same numbers of the experiment with a learnable variance."""
    data = tables.gradient_variance([cell for cell in cells if EXPERIMENTS[cell.experiment].in_paper], context)
    notes = (*facts(data, context), ABOUT_GRADIENT_VARIANCE, TABLE_1_NOTE)
    return Table(
        "table-1-gradient-variance", "Table 1: gradient variance", notes, data, gradient_variances(data, context)
    )


def gradient_variances(data: pd.DataFrame, context: Context) -> tuple[Part, ...]:
    """Gradient variances by epoch: a part for each data set and experiment."""
    parts = []
    for (dataset, experiment), group in grouped(data, "dataset", "experiment"):
        epochs = sorted({int(epoch) for epoch in group["epoch"].dropna()})
        rows: dict[bool, list[dict[tuple[str, str], str | Linked]]] = {}
        for (name, estimator), points in grouped(group, "method", "estimated_with"):
            method = METHODS[experiment][name]
            row: dict[tuple[str, str], str | Linked] = {
                ("", "Posterior"): method.space,
                ("", "Method"): method.label_with(estimator),
            }
            for reduction in tables.REDUCTIONS:
                values = dict(zip(points["epoch"], points[reduction], strict=True))
                for epoch in epochs:
                    key = (_REDUCTION_LABELS[reduction], f"epoch {epoch}")
                    row[key] = Linked(significant(values.get(epoch, math.nan)), f"{dataset}/{experiment}/{name}")
            zero = points["published"].eq(0).any()
            lost = dataset == "mnist" and EXPERIMENTS[experiment].in_paper and not method.beyond
            row |= {
                ("Paper", "published"): "0" if zero else "lost" if lost else NOTHING,
                ("Runs", "Seeds"): str(points["seeds"].max()),
                ("Runs", "Status"): points["status"].iloc[0],
            }
            rows.setdefault(method.beyond, []).append(row)
        for beyond, lines in rows.items():
            caption = f"{group_name(dataset, experiment, context, beyond)}: gradient variance by epoch"
            # The paper's table is the one of the fixed variance; the others go beyond it.
            parts.append(Part.of(caption, lines, headers=2, folded=not EXPERIMENTS[experiment].fixed_variance))
    return tuple(parts)
