"""Table 2, fixed variance, and its like of the experiment with a log-linear precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED_MSE
from silent_study.report import tables
from silent_study.report.context import Context
from silent_study.report.layout.gradient_variances import ABOUT_GRADIENT_VARIANCE, gradient_variances
from silent_study.report.layout.notes import (
    ABOUT_FACTOR_ANALYSIS,
    UNITS,
    about_controls,
    about_published,
    about_weighted,
    facts,
    made_from,
)
from silent_study.report.layout.printed import Linked, Part, Table, as_rows, group_name, grouped
from silent_study.report.layout.text import interval, monte_carlo, number, weighted_text
from silent_study.report.summary import Cell


def table_2(cells: Sequence[Cell], context: Context) -> Table:
    """Table 2: every metric of the cells with a fixed variance."""
    weighted = tables.importance_weighted(cells, "fixed")
    data = tables.measurements(cells, context, "fixed", (*tables.ALL_METRICS, *weighted))
    notes = [
        *facts(data, context),
        UNITS,
        "The paper does not say which MSE it prints; the one of sampled and clamped reconstructions fits its other "
        "numbers best, so that it is the one with an interval, and with what was published where something was.",
        *about_published(data),
        *about_weighted(cells, "fixed"),
        *about_controls(data),
    ]
    if len(data) and data["closed_form"].notna().any():
        notes.append(
            "Closed form: the best linear decoder and encoder for Gaussian latents (probabilistic PCA with the same "
            "latent dimension and variance), fitted to the training images and valued on the report split."
        )
    return Table(
        "table-2-fixed-variance", "Table 2: fixed variance", tuple(notes), data, _all_metrics(data, "fixed", context)
    )


def log_linear(cells: Sequence[Cell], context: Context) -> Iterator[Table]:
    """The experiment with a log-linear precision, where the plan has it: measurements, then gradient variances."""
    own = [cell for cell in cells if cell.experiment == "log-linear"]
    if not own:
        return
    weighted = tables.importance_weighted(own, "log-linear")
    data = tables.measurements(own, context, "log-linear", (*tables.ALL_METRICS, *weighted))
    notes = [
        "Beyond the paper: a linear decoder whose precision is the exponential of a linear function of the code. Its "
        "expectation is exact for both posteriors.",
        *facts(data, context),
        UNITS,
        *about_weighted(own, "log-linear"),
        *about_controls(data),
    ]
    if data["closed_form"].notna().any():
        notes.append(f"Closed form: factor analysis, {ABOUT_FACTOR_ANALYSIS}")
    title = "Beyond the paper: log-linear precision"
    yield Table("log-linear-precision", title, tuple(notes), data, _all_metrics(data, "log-linear", context))
    variances = tables.gradient_variance(own, context)
    parts = gradient_variances(variances, context)
    if parts:
        notes = [*facts(variances, context), ABOUT_GRADIENT_VARIANCE]
        yield Table("log-linear-gradient-variance", f"{title}, gradient variance", tuple(notes), variances, parts)


def _all_metrics(data: pd.DataFrame, experiment: str, context: Context) -> tuple[Part, ...]:
    groups: dict[tuple[str, bool], list[dict[tuple[str, str], str | Linked]]] = {}
    for (dataset, name), group in grouped(data, "dataset", "method"):
        by_metric = {row["metric"]: row for row in as_rows(group)}
        bpd, kl, mse = by_metric["bpd"], by_metric["kl"], by_metric[PUBLISHED_MSE]
        method = METHODS[experiment][name]
        measured = partial(Linked, target=f"{dataset}/{experiment}/{name}")
        groups.setdefault((dataset, method.beyond), []).append(
            {
                ("", "Posterior"): method.space,
                ("", "Method"): method.label,
                ("BPD", "mean"): measured(number(bpd["measured"])),
                ("BPD", "sd"): number(bpd["sd"]),
                ("BPD", "95% interval"): interval(bpd["low"], bpd["high"], bpd["seeds"]),
                ("BPD", "published"): number(bpd["published"]),
                ("BPD", "difference"): number(bpd["difference"], sign=True),
                ("BPD", "closed form"): number(bpd["closed_form"]),
                ("BPD", "Monte-Carlo error"): monte_carlo(bpd["monte_carlo_error"]),
                ("BPD", "importance-weighted"): measured(weighted_text(by_metric.get(tables.IMPORTANCE_WEIGHTED))),
                ("KL", "mean"): measured(number(kl["measured"], 2)),
                ("KL", "95% interval"): interval(kl["low"], kl["high"], kl["seeds"], 2),
                ("KL", "closed form"): number(kl["closed_form"], 2),
                ("MSE", "mean decoded"): measured(number(by_metric["mse_mean_decoded"]["measured"])),
                ("MSE", "sampled"): measured(number(by_metric["mse_sampled"]["measured"])),
                ("MSE", "sampled and clamped"): measured(number(mse["measured"])),
                ("MSE", "95% interval"): interval(mse["low"], mse["high"], mse["seeds"]),
                ("MSE", "published"): number(mse["published"]),
                ("MSE", "difference"): number(mse["difference"], sign=True),
                **made_from(bpd),
            }
        )
    return tuple(
        Part.of(f"{group_name(dataset, experiment, context, beyond)}, linear decoder", rows, headers=2)
        for (dataset, beyond), rows in groups.items()
    )
