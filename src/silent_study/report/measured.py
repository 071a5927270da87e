"""Tables 1 to 4 and their counterparts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from silent_study.methods import GUIDANCE, METHODS, Method
from silent_study.paper import PUBLISHED_MSE, TABLE_1_NOTE
from silent_study.report import printed, tables
from silent_study.report.cells import Cell, described, unequal_steps
from silent_study.report.context import Context
from silent_study.report.printed import METRIC_LABELS, NOTHING, Part, Table, Text, group_name, number
from silent_study.settings import EXPERIMENTS

_UNITS = (
    "BPD in bits/dim, KL in nats per image, MSE summed over the D pixels on the [0, 1) scale (times 1000 / D: mean per "
    "pixel in thousandths). Means over seeds."
)
_ABOUT_GRADIENT_VARIANCE = (
    "Variance of the gradient with respect to the encoder's parameters when only the code is drawn again, summed over "
    "parameters, of the reconstruction loss in nats; mean over seeds. Batch mean: gradient of the loss averaged over "
    "the images. Per-image mean: each image's own variance, then averaged."
)
_ABOUT_PCA = (
    "Closed form: the best linear decoder and encoder for Gaussian latents (probabilistic PCA with the same "
    "latent dimension and variance), fitted to the training images and valued on the report split."
)
_ABOUT_FACTOR_ANALYSIS = (
    "a linear mean and a variance per pixel, the same for every image, with the same latent dimension; fitted "
    "to the training images and valued on the report split. A linear decoder whose variance depends on a continuous "
    "code contains it, and should come out no worse; a convolutional one, or one with binary codes, need not."
)
_ABOUT_OWN = {
    "log-linear": "Beyond the paper: a linear decoder whose precision is the exponential of a linear function of the "
    "code. Its expectation is exact for both posteriors.",
    "two-layer": "Beyond the paper: a nonlinear decoder, linear in the code and in squares or cosines of linear "
    "functions of it. Its expectation is exact as well.",
}
_ABOUT_MSE = (
    "The paper does not say which MSE it prints; the one of sampled and clamped reconstructions fits its other "
    "numbers best, so that it is the one with an interval, and with what was published where something was."
)
_REDUCTION_LABELS = {"batch_mean": "batch mean", "per_image_mean": "per-image mean"}
_ROW_NAMES = (("", "Posterior"), ("", "Estimator"))
_FACTOR_ANALYSIS = ("Continuous", "Factor analysis")
_COLUMNS = dict(zip(GUIDANCE, (*GUIDANCE[:2], f"{GUIDANCE[2]} ({printed.BEYOND})"), strict=True))

# Columns that a page shows at first.
_MAIN = {("BPD", name) for name in ("mean", "95% interval", "published", "difference")}
_MAIN |= {("KL", "mean"), ("Runs", "Status")}

Row = dict[Any, str]


def measured_tables(cells: Sequence[Cell], context: Context) -> Iterator[Table]:
    """Yield Tables 1 to 4, then the tables of each experiment of ours that the plan has."""
    papers = [cell for cell in cells if EXPERIMENTS[cell.experiment].in_paper]
    yield _gradient_variances("table-1-gradient-variance", "Table 1: gradient variance", papers, context, TABLE_1_NOTE)
    yield _all_metrics("table-2-fixed-variance", "Table 2: fixed variance", "fixed", cells, context)
    for place, metric, name in ((3, "bpd", "bits per dimension"), (4, "kl", "KL divergence")):
        stem = f"table-{place}-{name.lower().replace(' ', '-')}"
        yield _by_guidance(stem, f"Table {place}: learnable variance, {name}", metric, cells, context)
    for experiment, about in _ABOUT_OWN.items():
        own = [cell for cell in cells if cell.experiment == experiment]
        if own:
            name = EXPERIMENTS[experiment].title
            title = f"{printed.BEYOND.capitalize()}: {name}"
            yield _all_metrics(name.replace(" ", "-"), title, experiment, own, context, about)
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
            row: Row = {("", "Posterior"): method.space, ("", "Method"): method.label_with(estimator)}
            for reduction in tables.REDUCTIONS:
                values = dict(zip(points["epoch"], points[reduction], strict=True))
                for epoch in epochs:
                    text = printed.significant(values.get(epoch, math.nan))
                    key = (_REDUCTION_LABELS[reduction], f"epoch {epoch}")
                    row[key] = Text(text, f"{dataset}/{experiment}/{name_of_method}")
            lost = dataset == "mnist" and in_paper and not method.beyond
            row["Paper", "published"] = "0" if points["published"].eq(0).any() else "lost" if lost else NOTHING
            row |= {("Runs", "Seeds"): str(points["seeds"].max()), ("Runs", "Status"): points["status"].iloc[0]}
            rows.setdefault(method.beyond, []).append(row)
        for beyond, lines in rows.items():
            caption = f"{group_name(dataset, experiment, context, beyond)}: gradient variance by epoch"
            main = {name for name in lines[0] if name[0] != _REDUCTION_LABELS["per_image_mean"]} - {("Runs", "Seeds")}
            # The paper's table has the fixed variance alone.
            parts.append(Part.of(caption, lines, headers=2, main=main, folded=not fixed))
    return Table(name, title, (*printed.facts(data, context), _ABOUT_GRADIENT_VARIANCE, *notes), data, tuple(parts))


def _all_metrics(name: str, title: str, experiment: str, cells: Sequence[Cell], context: Context, *about: str) -> Table:
    """Return every metric of the cells of an experiment with an exact decoder."""
    data = tables.measurements(cells, context, experiment, tables.ALL_METRICS)
    groups: dict[tuple[str, bool], list[Row]] = {}
    for dataset, method, target, rows in _by_method(data, experiment):
        bpd, kl, mse = (_printed(rows[metric], target) for metric in ("bpd", "kl", PUBLISHED_MSE))
        groups.setdefault((dataset, method.beyond), []).append(
            {
                ("", "Posterior"): method.space,
                ("", "Method"): method.label,
                **{("BPD", column): text for column, text in bpd.items()},
                ("BPD", "importance-weighted"): _weighted(rows, target),
                **{("KL", column): kl[column] for column in ("mean", "95% interval", "closed form")},
                ("MSE", "mean decoded"): _printed(rows["mse_mean_decoded"], target)["mean"],
                ("MSE", "sampled"): _printed(rows["mse_sampled"], target)["mean"],
                ("MSE", "sampled and clamped"): mse["mean"],
                **{("MSE", column): mse[column] for column in ("95% interval", "published", "difference")},
                **{("Runs", column): text for column, text in _made_from(rows["bpd"]).items()},
            }
        )
    fixed = EXPERIMENTS[experiment].fixed_variance
    decoder = "" if "decoder" in EXPERIMENTS[experiment].title else ", linear decoder"
    notes = [
        *about,
        *printed.facts(data, context),
        _UNITS,
        *([_ABOUT_MSE, _about_published(data)] if fixed else []),
        *_about_weighted(data, cells),
        *_about_controls(data),
    ]
    if _any(data, "closed_form"):
        notes.append(_ABOUT_PCA if fixed else f"Closed form: factor analysis, {_ABOUT_FACTOR_ANALYSIS}")
    parts = [
        Part.of(
            f"{group_name(dataset, experiment, context, beyond)}{decoder}",
            lines,
            headers=2,
            main=_MAIN,
            best={("BPD", "mean"), *(("MSE", name) for name in ("mean decoded", "sampled", "sampled and clamped"))},
        )
        for (dataset, beyond), lines in groups.items()
    ]
    return Table(name, title, tuple(notes), data, tuple(parts))


def _by_guidance(name: str, title: str, metric: str, cells: Sequence[Cell], context: Context) -> Table:
    """Return a metric of the cells with a learnable variance: compact as in the paper, then in detail."""
    data = tables.measurements(cells, context, "learnable", (metric,))
    label, steps = METRIC_LABELS[metric], unequal_steps(cells)
    beside = tables.measurements(cells, context, "learnable", ("kl",)) if metric == "bpd" else data
    kl = {target: _printed(rows["kl"], target)["mean"] for _, _, target, rows in _by_method(beside, "learnable")}
    compact: dict[tuple[str, str], Row] = {}
    details: dict[tuple[str, bool], list[Row]] = {}
    papers = {_FACTOR_ANALYSIS}
    for dataset, method, target, rows in _by_method(data, "learnable"):
        name_of = method.label if method.sampled_estimator == "none" else method.estimator_label
        key, found = (method.space, name_of), _printed(rows[metric], target, of_published=2)
        title_of = context.title(dataset)
        papers |= set() if method.beyond else {key}
        row = compact.setdefault(key, dict(zip(_ROW_NAMES, key, strict=True)))
        trained = f" ({steps[target]})" if steps[target] and rows[metric]["seeds"] else ""
        text = _with_interval(rows[metric], found) + trained
        row[title_of, _COLUMNS[method.guidance]] = Text(text, target, rows[metric]["measured"])
        row[title_of, f"published {method.guidance}"] = found["published"]
        details.setdefault((dataset, method.beyond), []).append(
            {
                "Posterior": method.space,
                "Method": method.label,
                label: found["mean"],
                **{name: found[name] for name in ("sd", "95% interval")},
                **{name.capitalize(): found[name] for name in ("published", "difference")},
                **({"KL": kl[target]} if metric == "bpd" else {}),
                **({"Monte-Carlo error": found["Monte-Carlo error"]} if metric == "bpd" else {}),
                "Importance-weighted": _weighted(rows, target),
                **_made_from(rows[metric]),
            }
        )
    datasets = list(dict.fromkeys(dataset for dataset, _ in details))
    for dataset in datasets:
        reached = tables.factor_analysis(context, dataset, "learnable", metric)
        if not math.isnan(reached):
            row = compact.setdefault(_FACTOR_ANALYSIS, dict(zip(_ROW_NAMES, _FACTOR_ANALYSIS, strict=True)))
            row[context.title(dataset), GUIDANCE[0]] = number(reached, printed.DIGITS[metric])
    columns = [
        (context.title(dataset), text)
        for dataset in datasets
        for text in (*_COLUMNS.values(), *(f"published {guidance}" for guidance in GUIDANCE[:2]))
    ]
    parts = []
    for beyond in (False, True):
        lines = [
            {name: row.get(name, NOTHING) for name in (*_ROW_NAMES, *columns)}
            for key, row in compact.items()
            if (key not in papers) == beyond
        ]
        if lines:
            caption = f"{'Beyond the paper: ' if beyond else ''}{label} without and with silent gradients"
            parts.append(Part.of(caption, lines, headers=2, folded=True))
    for (dataset, beyond), lines in details.items():
        caption = f"{group_name(dataset, 'learnable', context, beyond)}: {label} in detail"
        main = {label, "95% interval", "Published", "Difference", "KL", "Status"}
        parts.append(Part.of(caption, lines, 2, main=main, best={"BPD"}))
    return Table(
        name, title, (*printed.facts(data, context), *_about_guidance(data, cells, metric)), data, tuple(parts)
    )


def _by_method(data: pd.DataFrame, experiment: str) -> Iterator[tuple[str, Method, str, dict[str, dict[str, Any]]]]:
    """Yield data set, method, name and measurements by metric of each cell."""
    for (dataset, name), group in printed.grouped(data, "dataset", "method"):
        rows = {row["metric"]: row for row in printed.as_rows(group)}
        yield dataset, METHODS[experiment][name], f"{dataset}/{experiment}/{name}", rows


def _about_guidance(data: pd.DataFrame, cells: Sequence[Cell], metric: str) -> Iterator[str]:
    yield (
        f"{METRIC_LABELS[metric]} in {'bits/dim' if metric == 'bpd' else 'nats per image'}: mean over seeds with its "
        "95% Student interval. SG: the silent gradient of a linear decoder guides the encoder. A star marks a cell "
        "whose status, in its details below, says more."
    )
    if any(unequal_steps([cell for cell in cells if cell.experiment == "learnable"]).values()):
        yield "Methods that were trained for different numbers of steps have their lengths beside their means."
    yield from (_about_published(data), *_about_controls(data), *_about_weighted(data, cells))
    if _any(data, "closed_form"):
        yield f"Factor analysis: {_ABOUT_FACTOR_ANALYSIS}"
    if len(data) and data["guidance"].eq("with sampled guide").any():
        yield (
            "Sampled guide: the same guide and schedule with a gradient that is estimated as the reported decoder's; "
            "what it lacks beside SG is silence alone."
        )


def _printed(row: dict[str, Any], target: str, of_published: int | None = None) -> dict[str, str]:
    """Return a measurement as text by column; published values may have other digits than measured ones."""
    digits = printed.DIGITS.get(row["metric"], 3)
    return {
        "mean": Text(number(row["measured"], digits), target),
        "sd": number(row["sd"], digits),
        "95% interval": printed.interval(row["low"], row["high"], row["seeds"], digits),
        "published": number(row["published"], of_published or digits),
        "difference": number(row["difference"], digits, sign=True),
        "closed form": number(row["closed_form"], digits),
        "Monte-Carlo error": printed.monte_carlo(row["monte_carlo_error"]),
    }


def _weighted(rows: dict[str, dict[str, Any]], target: str) -> Text:
    """Return an importance-weighted bound with its Monte-Carlo error; a dash if it was not computed."""
    row = rows.get(tables.IMPORTANCE_WEIGHTED, {"measured": math.nan})
    missing = math.isnan(row["measured"])
    text = NOTHING if missing else f"{number(row['measured'])} ± {number(row['monte_carlo_error'], 4)}"
    return Text(text, target)


def _with_interval(row: dict[str, Any], found: dict[str, str]) -> str:
    if not row["seeds"]:
        return str(row["status"])
    bounds = "(one seed)" if row["seeds"] == 1 else found["95% interval"]
    return f"{found['mean']} {bounds}{'' if row['status'] == 'complete' else ' *'}"


def _made_from(row: dict[str, Any]) -> dict[str, str]:
    """Return the columns on what a number is made from: seeds, epochs, configurations, status."""
    configurations = row["configurations"]
    return {
        "Seeds": str(row["seeds"]),
        "Epochs": str(row["epochs"]) or NOTHING,
        "Configurations tried": NOTHING if pd.isna(configurations) else f"{configurations:.0f}",
        "Status": str(row["status"]),
    }


def _any(data: pd.DataFrame, column: str) -> bool:
    return bool(len(data) and data[column].notna().any())


def _about_published(data: pd.DataFrame) -> str:
    if not _any(data, "published"):
        return "The paper has no numbers for these data sets."
    return (
        "Published values come from the paper's own, longest training; the epochs of each row say how far this preset "
        "goes. Difference: measured minus published."
    )


def _about_weighted(data: pd.DataFrame, cells: Sequence[Cell]) -> Iterator[str]:
    if len(data) and data["metric"].eq(tables.IMPORTANCE_WEIGHTED).any():
        experiments = set(data["experiment"])
        reports = [run.metrics("report") for cell in cells for run in cell.evaluated if cell.experiment in experiments]
        samples = described([report["importance_samples"] for report in reports if "importance_samples" in report])
        yield (
            f"Importance-weighted: the bound of {samples} samples per image (Burda et al. 2016), in expectation no "
            "looser than the evidence lower bound; with its Monte-Carlo error."
        )


def _about_controls(data: pd.DataFrame) -> Iterator[str]:
    if len(data) and data["estimator"].str.contains("silent").any():
        own = any(EXPERIMENTS[experiment].exact for experiment in data["experiment"])
        yield "Silent baselines and silent controls are those of " + (
            "the reported decoder itself, whose expectation is known."
            if own
            else "a guide that trains beside the decoder; it steers the encoder only in the rows with SG."
        )
