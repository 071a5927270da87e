"""Tables 1 to 4 and their counterparts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED_MSE, TABLE_1_NOTE
from silent_study.report import printed, tables
from silent_study.report.cells import BEYOND, Cell, Context, described, unequal_steps
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Table, Text, number
from silent_study.settings import EXPERIMENTS

_UNITS = "BPD in bits/dim, KL in nats per image. Means over seeds with 95% Student intervals."
_ABOUT_GRADIENT_VARIANCE = (
    "Variance over draws of the latent variables of the reconstruction loss's gradient with respect to the encoder's "
    "parameters, in nats, summed over parameters; mean over seeds. Batch mean: gradient of the loss averaged over the "
    "images. Per-image mean: each image's own variance, then averaged."
)
_ABOUT_PCA = (
    "the best linear decoder and encoder for Gaussian latents (probabilistic PCA with the same "
    "latent dimension and variance), fitted to the training images and valued on the report split."
)
_ABOUT_FACTOR_ANALYSIS = (
    "factor analysis, a linear mean and a variance per pixel, the same for every image, with the same latent "
    "dimension; fitted to the training images and valued on the report split. A linear decoder whose variance depends "
    "on Gaussian latent variables contains it, and should be no worse; a convolutional one, or one with binary latent "
    "variables, need not."
)
_ABOUT_OWN = {
    "log-linear": "Beyond the paper: a linear decoder whose precision is the exponential of a linear function of the "
    "latent variables. Its expectation is exact for both posteriors.",
    "two-layer": "Beyond the paper: a nonlinear decoder, linear in the latent variables and in squares or cosines of "
    "linear functions of them. Its expectation is exact as well.",
}
_ABOUT_MSE = (
    "MSE is summed over the D pixels on the [0, 1) scale (times 1000 / D: mean per pixel in thousandths). The paper "
    "does not say which MSE it prints; the one of sampled and clamped reconstructions fits its other numbers best, so "
    "that it is the one with an interval, and with what was published where something was."
)
_MEAN_ALONE = ("mse_mean_decoded", "mse_sampled")
_BEST = {"BPD", "MSE mean decoded", "MSE sampled", "MSE sampled and clamped"}

Row = dict[str, str]


def measured_tables(cells: Sequence[Cell], context: Context) -> Iterator[Table]:
    """Yield Tables 1 to 4, then the tables of each experiment of ours that the plan has."""
    papers = [cell for cell in cells if EXPERIMENTS[cell.experiment].in_paper]
    yield _gradient_variances("table-1-gradient-variance", "Table 1: gradient variance", papers, context, TABLE_1_NOTE)
    every = tables.ALL_METRICS
    yield _metrics("table-2-fixed-variance", "Table 2: fixed variance", "fixed", every, cells, context)
    for place, metric, name in ((3, "bpd", "bits per dimension"), (4, "kl", "KL divergence")):
        stem = f"table-{place}-{name.lower().replace(' ', '-')}"
        yield _metrics(stem, f"Table {place}: learnable variance, {name}", "learnable", (metric,), cells, context)
    for experiment, about in _ABOUT_OWN.items():
        own = [cell for cell in cells if cell.experiment == experiment]
        if own:
            name = EXPERIMENTS[experiment].title
            title = f"{BEYOND.capitalize()}: {name}"
            yield _metrics(name.replace(" ", "-"), title, experiment, every, own, context, about)
            table = _gradient_variances(f"{experiment}-gradient-variance", f"{title}, gradient variance", own, context)
            yield from [table] if table.parts else []


def _gradient_variances(name: str, title: str, cells: Sequence[Cell], context: Context, *notes: str) -> Table:
    """Return gradient variances by epoch, a part for each data set and experiment."""
    data = tables.gradient_variance(cells, context)
    parts = []
    for (dataset, experiment), group in printed.grouped(data, "dataset", "experiment"):
        fixed, in_paper = EXPERIMENTS[experiment].fixed_variance, EXPERIMENTS[experiment].in_paper
        epochs = sorted({int(epoch) for epoch in group["epoch"].dropna()})
        rows: dict[bool, list[Row]] = {}
        for (name_of_method, estimator), points in printed.grouped(group, "method", "estimated_with"):
            method = METHODS[experiment][name_of_method]
            row: Row = {"Posterior": method.space, "Method": method.label_with(estimator)}
            for reduction, label in tables.REDUCTIONS.items():
                values = dict(zip(points["epoch"], points[reduction], strict=True))
                for epoch in epochs:
                    text = printed.significant(values.get(epoch, math.nan))
                    target = f"{dataset}/{experiment}/{name_of_method}"
                    row[f"{label} epoch {epoch}"] = Text(text, target)
            lost = dataset == "mnist" and in_paper and not method.beyond
            row["Paper published"] = "0" if points["published"].eq(0).any() else "lost" if lost else NOTHING
            row |= {"Seeds": str(points["seeds"].max()), "Status": points["status"].iloc[0]}
            rows.setdefault(method.beyond, []).append(row)
        for beyond, lines in rows.items():
            caption = f"{context.group(dataset, experiment, beyond)}: gradient variance by epoch"
            main = {name for name in lines[0] if name != "Seeds" and not name.startswith("per-image")}
            # The paper's table has the fixed variance alone.
            parts.append(Part.of(caption, lines, headers=2, main=main, folded=not fixed))
    return Table(name, title, (*printed.facts(data, context), _ABOUT_GRADIENT_VARIANCE, *notes), data, tuple(parts))


def _metrics(
    name: str,
    title: str,
    experiment: str,
    metrics: Sequence[str],
    cells: Sequence[Cell],
    context: Context,
    *about: str,
) -> Table:
    """Return metrics of the cells of an experiment, a part for each data set; BPD has the KL beside it."""
    data, steps = tables.measurements(cells, context, experiment, metrics), unequal_steps(cells)
    beside = () if "kl" in metrics else ("kl",)
    shown = pd.concat([data, tables.measurements(cells, context, experiment, beside)])
    groups: dict[tuple[str, bool], list[Row]] = {}
    for (dataset, of), group in printed.grouped(shown, "dataset", "method"):
        rows = {row["metric"]: row for row in group.to_dict("records")}
        method, target = METHODS[experiment][of], f"{dataset}/{experiment}/{of}"
        trained = f" ({steps[target]})" if steps[target] else ""
        row: Row = {"Posterior": method.space, "Method": f"{method.label}{trained}"}
        for metric in (*metrics, *beside):
            label, _, own = METRIC_LABELS[metric].partition(", ")
            row |= {f"{label} {column or own}".strip(): text for column, text in _printed(rows[metric], target).items()}
            if metric == "bpd":
                bound = rows.get(tables.IMPORTANCE_WEIGHTED, {"measured": math.nan, "monte_carlo_error": math.nan})
                text = f"{number(bound['measured'])} ± {number(bound['monte_carlo_error'], 4)}"
                row[f"{label} importance-weighted"] = Text(NOTHING if math.isnan(bound["measured"]) else text, target)
        made = rows[metrics[0]]
        row["Seeds"], row["Epochs"] = str(made["seeds"]), str(made["epochs"]) or NOTHING
        tried = made["configurations"]
        row["Configurations tried"] = NOTHING if pd.isna(tried) else f"{tried:.0f}"
        row["Status"] = str(made["status"])
        groups.setdefault((dataset, method.beyond), []).append(row)
    traits = EXPERIMENTS[experiment]
    decoder = ", linear decoder" if traits.exact and "decoder" not in traits.title else ""
    first = METRIC_LABELS[metrics[0]]
    main = {first, *(f"{first} {column}" for column in ("95% interval", "published", "difference")), "KL", "Status"}
    parts = [
        Part.of(f"{context.group(dataset, experiment, beyond)}{decoder}", lines, headers=2, main=main, best=_BEST)
        for (dataset, beyond), lines in groups.items()
    ]
    notes = (*about, *printed.facts(data, context), _UNITS, *_about(data, cells, metrics))
    return Table(name, title, notes, data, tuple(parts))


def _printed(row: Mapping[Any, Any], target: str) -> Row:
    """Return a measurement as text by column, its mean without a name; some errors have a mean alone."""
    digits = printed.DIGITS.get(row["metric"], 3)
    found: Row = {"": Text(number(row["measured"], digits), target)}
    if row["metric"] in _MEAN_ALONE:
        return found
    found |= {
        "sd": number(row["sd"], digits),
        "95% interval": printed.interval(row["low"], row["high"], row["seeds"], digits),
        # The paper's Tables 3 and 4 have two decimals.
        "published": number(row["published"], 2 if row["experiment"] == "learnable" else digits),
        "difference": number(row["difference"], digits, sign=True),
        "closed form": number(row["closed_form"], digits),
    }
    if row["metric"] == "bpd":
        found["Monte-Carlo error"] = printed.monte_carlo(row["monte_carlo_error"])
    return found


def _about(data: pd.DataFrame, cells: Sequence[Cell], metrics: Sequence[str]) -> Iterator[str]:
    if not len(data):
        return
    experiment = EXPERIMENTS[data["experiment"].iloc[0]]
    own = [cell for cell in cells if EXPERIMENTS[cell.experiment] is experiment]
    yield (
        "Published values come from the paper's own, longest training; the epochs of each row say how far this preset "
        "goes. Difference: measured minus published."
        if data["published"].notna().any()
        else "The paper has no numbers for these data sets."
    )
    if PUBLISHED_MSE in metrics:
        yield _ABOUT_MSE
    if data["metric"].eq(tables.IMPORTANCE_WEIGHTED).any():
        reports = [run.metrics("report") for cell in own for run in cell.evaluated]
        samples = described([report["importance_samples"] for report in reports if "importance_samples" in report])
        yield (
            f"Importance-weighted: the bound of {samples} samples per image (Burda et al. 2016), in expectation no "
            "looser than the evidence lower bound; with its Monte-Carlo error."
        )
    if data["estimator"].str.contains("silent").any():
        yield "Silent baselines and silent controls are those of " + (
            "the reported decoder itself, whose expectation is known."
            if experiment.exact
            else "a guide that trains beside the decoder; it steers the encoder only in the rows with SG."
        )
    if data["guidance"].eq("with sampled guide").any():
        yield (
            "Sampled guide: the same guide and schedule with a gradient that is estimated as the reported decoder's; "
            "what it lacks beside SG is silence alone."
        )
    if data["closed_form"].notna().any():
        yield f"Closed form: {_ABOUT_PCA if experiment.fixed_variance else _ABOUT_FACTOR_ANALYSIS}"
