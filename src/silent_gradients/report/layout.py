"""The tables as people read them: numbers turned into text, in the paper's layout where it has one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import pandas as pd

from silent_gradients.report import tables
from silent_gradients.report.claims import Claim
from silent_gradients.report.equal_budgets import equal_budgets
from silent_gradients.report.naming import EXPERIMENTS, GUIDANCE, MethodName
from silent_gradients.report.published import PUBLISHED_MSE, TABLE_1_NOTE
from silent_gradients.report.records import Context, Record
from silent_gradients.report.summary import Cell, described

NOTHING = "–"
METRIC_LABELS = {
    "bpd": "BPD",
    "kl": "KL",
    "mse_mean_decoded": "MSE, mean decoded",
    "mse_sampled": "MSE, sampled",
    "mse_sampled_clamped": "MSE, sampled and clamped",
    "epochs_to_threshold": "epochs to threshold",
}
_DIGITS = {"bpd": 3, "kl": 2, "epochs_to_threshold": 1}
_REDUCTION_LABELS = {"batch_mean": "batch mean", "per_image_mean": "per-image mean"}


@dataclass(frozen=True)
class Linked:
    """A printed number and where it comes from.

    Attributes:
        target: Name of the cell or run that it was measured in.
    """

    text: str
    target: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Part:
    """One printed table.

    Attributes:
        caption: What it shows.
        frame: Text only; columns may have two levels, the upper one grouping them.
        headers: Number of leading columns that name a row.
        folded: Whether a page may hide it at first.
        links: For each row the cells or runs that its numbers were measured in, by column.
    """

    caption: str
    frame: pd.DataFrame
    headers: int
    folded: bool = False
    links: tuple[Mapping[Any, str], ...] = ()

    @classmethod
    def of(cls, caption: str, rows: Sequence[Mapping[Any, str | Linked]], headers: int, folded: bool = False) -> Part:
        """A table of rows by column, without the columns on what does not exist here, such as published numbers."""
        text = [{column: str(value) for column, value in row.items()} for row in rows]
        links = tuple(
            {
                column: value.target
                for column, value in row.items()
                if isinstance(value, Linked) and value.text != NOTHING
            }
            for row in rows
        )
        return cls(caption, _filled(pd.DataFrame(text)), headers, folded, links)


@dataclass(frozen=True)
class Table:
    """A table of the report: its numbers for programs, its parts for people.

    Attributes:
        name: Stem of its files.
        notes: What its numbers are: preset, data, split, units, caveats.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    data: pd.DataFrame
    parts: tuple[Part, ...]


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number with a fixed count of decimals and a true minus sign; a dash where there is none."""
    if math.isnan(value):
        return NOTHING
    # Adding zero turns a rounded -0 into 0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: float, high: float, count: int, digits: int = 3) -> str:
    """The ends of an interval, or why there is none."""
    if count == 1:
        return "one seed: none"
    return NOTHING if math.isnan(low) else f"[{number(low, digits)}, {number(high, digits)}]"


def monte_carlo(error: float) -> str:
    """The error that the latent samples leave, or that there is none because no sample was needed."""
    return "exact" if error == 0 else number(error, 4)


def probability(value: float) -> str:
    """A p-value to three decimals."""
    return "<0.001" if value < 0.0005 else number(value)


def significant(value: float) -> str:
    """Three significant digits, for numbers of any size."""
    return NOTHING if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def layout(cells: Sequence[Cell], found: Sequence[Claim], records: Sequence[Record], context: Context) -> list[Table]:
    """Every table of the report, in its order: claims, Tables 1 to 4, what is beyond the paper, the grids."""
    return [
        _claims(found, context),
        _table_1(cells, context),
        _table_2(cells, context),
        _by_guidance(
            "table-3-bits-per-dimension", "Table 3: learnable variance, bits per dimension", "bpd", cells, context
        ),
        _by_guidance("table-4-kl-divergence", "Table 4: learnable variance, KL divergence", "kl", cells, context),
        *_log_linear(cells, context),
        _equal_budgets(found, records, context),
        _grid(records, context),
    ]


def time(records: Sequence[Record], context: Context) -> Part | None:
    """Device time by cell, as the runs recorded it: trainings alone, each run of a stack its share."""
    runs: dict[str, dict[str, Record]] = {}
    of_seeds = {record.name for record in records if record.round == "seeds"}
    for record in records:
        runs.setdefault(record.cell, {})[record.name] = record
    spent = {cell: [float(run.provenance["seconds"]) for run in found.values()] for cell, found in runs.items()}
    total = sum(map(sum, spent.values()))
    unit, seconds = ("hours", 3600) if total >= 3 * 3600 else ("minutes", 60)
    rows: list[dict[str, str | Linked]] = []
    for cell in sorted(runs, key=lambda cell: -sum(spent[cell])):
        members = runs[cell].values()
        first = next(iter(members))
        speeds = [speed for run in members if (speed := run.provenance.get("images_per_second"))]
        reported = sum(float(run.provenance["seconds"]) for run in members if run.name in of_seeds)
        rows.append(
            {
                "Cell": f"{MethodName.of(first.experiment, first.method).label}, "
                f"{_group_name(first.dataset, first.experiment, context)}",
                "Trainings": str(len(members)),
                f"Device {unit}": Linked(number(sum(spent[cell]) / seconds, 2), cell),
                "of these reported runs": number(reported / seconds, 2),
                "Share": f"{sum(spent[cell]) / total:.1%}" if total else NOTHING,
                "Images per second, median": significant(median(speeds)) if speeds else NOTHING,
                "Device": described([f"{run.provenance['device']}, {run.provenance['hardware']}" for run in members]),
            }
        )
    caption = f"Device {unit} of training by cell, {number(total / seconds, 2)} in all"
    return Part.of(caption, rows, headers=1) if rows else None


def markdown(table: Table) -> str:
    """A table as a Markdown document, its column groups written into the column names."""
    lines = [f"# {table.title}", "", *(f"{note}\n" for note in table.notes)]
    for part in table.parts:
        frame = part.frame
        columns: list[Any] = list(frame.columns)
        names = [" ".join(filter(None, name)) if isinstance(name, tuple) else name for name in columns]
        lines += [part.caption, "", _row(names), _row(["---"] * len(names))]
        lines += [_row(list(row)) for row in frame.itertuples(index=False)]
        lines.append("")
    return "\n".join(lines)


def facts(data: pd.DataFrame, context: Context) -> list[str]:
    """Preset and protocol; then for each data set its digest, split, number of images and samples."""
    protocols = [value for value in data["protocol"] if value] if len(data) else []
    lines = [f"Preset {context.preset}, protocol {described(protocols) or context.protocol}."]
    for (dataset,), rows in _grouped(data, "dataset"):
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


def _about_published(data: pd.DataFrame) -> list[str]:
    if not len(data) or data["published"].isna().all():
        return ["The paper has no numbers for these data sets."]
    return [
        "Published values come from the paper's own, longest training; the epochs of each row say how far this preset "
        "goes. Difference: measured minus published."
    ]


def _about_weighted(cells: Sequence[Cell], experiment: str) -> list[str]:
    if not tables.importance_weighted(cells, experiment):
        return []
    reports = [run.evaluation["report"] for cell in cells for run in cell.evaluated if run.evaluation]
    samples = described([report["importance_samples"] for report in reports if "importance_samples" in report])
    return [
        f"Importance-weighted: the bound of {samples} samples per image (Burda et al. 2016), in expectation no looser "
        "than the evidence lower bound; with its Monte-Carlo error."
    ]


def _weighted(row: dict[str, Any] | None) -> str:
    if row is None or math.isnan(row["measured"]):
        return NOTHING
    return f"{number(row['measured'])} ± {number(row['monte_carlo_error'], 4)}"


def _about_controls(data: pd.DataFrame) -> list[str]:
    if not len(data) or not data["estimator"].str.contains("silent").any():
        return []
    if (data["experiment"] == "learnable").all():
        return [
            "Silent baselines and silent controls are those of a guide that trains beside the decoder; it steers the "
            "encoder only in the rows with SG."
        ]
    return [
        "Silent baselines and silent controls are those of the reported decoder itself, whose expectation is known."
    ]


def _claims(found: Sequence[Claim], context: Context) -> Table:
    data = tables.claim_table(found, context)
    groups: dict[tuple[bool, str, str], list[dict[str, str | Linked]]] = {}
    for claim in sorted(found, key=lambda claim: not claim.of_the_paper):
        digits, difference = _DIGITS.get(claim.metric, 3), claim.difference
        sign = "<" if claim.expected < 0 else ">"
        groups.setdefault((not claim.of_the_paper, claim.first.dataset, claim.first.experiment), []).append(
            {
                "Ordering": f"{claim.first.method.label} {sign} {claim.second.method.label}",
                "Metric": METRIC_LABELS[claim.metric],
                "Verdict": claim.verdict,
                "Difference": Linked(number(difference.mean, digits, sign=True), claim.first.name),
                "95% interval": _pairs_interval(difference.low, difference.high, difference.n, digits),
                "Pairs": str(difference.n),
                "p": probability(claim.p_value),
                "p, Holm": probability(claim.adjusted),
                "After Holm": NOTHING if math.isnan(claim.adjusted) else "stands" if claim.survives else "open",
                "Published": number(claim.published_difference, digits, sign=True),
                "Basis": claim.basis,
            }
        )
    lost = sum(claim.unpaired for claim in found)
    notes = [
        f"Preset {context.preset}, protocol {context.protocol}.",
        "Differences are first minus second on equal seeds: mean and 95% Student interval. An ordering holds or fails "
        "where the interval lies on one side of zero. n is the number of pairs: trainings, never evaluations of one.",
        _about_holm(found),
        "Basis: the sign of the difference of the published numbers, or the paper's text where it has no numbers for "
        "the data set.",
    ]
    if any(beyond for beyond, *_ in groups):
        notes.append(
            "Ours: the paper does not compare with a guide of a sampled gradient. If it is the absence of variance "
            "that helps, and not a second decoder beside the first, a silent guide has the lower BPD."
        )
    if lost:
        notes.append(
            f"{lost} {'seed' if lost == 1 else 'seeds'} had no pair, because one of the two runs diverged, is missing "
            "or has no such value."
        )
    parts = [
        Part.of(f"{_group_name(dataset, experiment, context, beyond)}: orderings on equal seeds", rows, headers=1)
        for (beyond, dataset, experiment), rows in groups.items()
    ]
    return Table("claims", "Published orderings", tuple(notes), data, tuple(parts))


def _about_holm(found: Sequence[Claim]) -> str:
    sizes = [
        sum(claim.of_the_paper == papers and not math.isnan(claim.adjusted) for claim in found)
        for papers in (True, False)
    ]
    ours = f", the {sizes[1]} of ours another" if sizes[1] else ""
    return (
        "p: Student's, two-sided, of the same paired differences. Holm: adjusted for the number of orderings by Holm's "
        f"procedure, over all data sets, experiments and metrics of this page at once: the {sizes[0]} orderings of the "
        f"paper with an interval are one family{ours}. An ordering that stands has an adjusted p below 0.05. The "
        "verdict takes each ordering alone, by the interval that is printed beside it."
    )


def _table_1(cells: Sequence[Cell], context: Context) -> Table:
    data = tables.gradient_variance([cell for cell in cells if cell.experiment != "log-linear"], context)
    notes = (*facts(data, context), _ABOUT_GRADIENT_VARIANCE, TABLE_1_NOTE)
    return Table(
        "table-1-gradient-variance", "Table 1: gradient variance", notes, data, _gradient_variances(data, context)
    )


_ABOUT_GRADIENT_VARIANCE = (
    "Variance of the gradient with respect to the encoder's parameters when only the code is drawn again, summed over "
    "parameters, of the reconstruction loss in nats; mean over seeds. Batch mean: gradient of the loss averaged over "
    "the images. Per-image mean: each image's own variance, then averaged."
)


def _gradient_variances(data: pd.DataFrame, context: Context) -> tuple[Part, ...]:
    parts = []
    for (dataset, experiment), group in _grouped(data, "dataset", "experiment"):
        epochs = sorted({int(epoch) for epoch in group["epoch"].dropna()})
        rows: dict[bool, list[dict[tuple[str, str], str | Linked]]] = {}
        for (name, estimator), points in _grouped(group, "method", "estimated_with"):
            method = MethodName.of(experiment, name)
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
            lost = dataset == "mnist" and experiment != "log-linear" and not method.beyond
            row |= {
                ("Paper", "published"): "0" if zero else "lost" if lost else NOTHING,
                ("Runs", "Seeds"): str(points["seeds"].max()),
                ("Runs", "Status"): points["status"].iloc[0],
            }
            rows.setdefault(method.beyond, []).append(row)
        for beyond, lines in rows.items():
            caption = f"{_group_name(dataset, experiment, context, beyond)}: gradient variance by epoch"
            # The paper's table is the one of the fixed variance; the others go beyond it.
            parts.append(Part.of(caption, lines, headers=2, folded=experiment != "fixed"))
    return tuple(parts)


def _table_2(cells: Sequence[Cell], context: Context) -> Table:
    weighted = tables.importance_weighted(cells, "fixed")
    data = tables.measurements(cells, context, "fixed", (*tables.ALL_METRICS, *weighted))
    notes = [
        *facts(data, context),
        _UNITS,
        "The paper does not say which MSE it prints; the one of sampled and clamped reconstructions fits its other "
        "numbers best, so its interval, the published value and the difference stand there.",
        *_about_published(data),
        *_about_weighted(cells, "fixed"),
        *_about_controls(data),
    ]
    if len(data) and data["closed_form"].notna().any():
        notes.append(
            "Closed form: the best linear decoder and encoder for Gaussian latents (probabilistic PCA with the same "
            "latent dimension and variance), fitted to the training images and valued on the report split."
        )
    return Table(
        "table-2-fixed-variance", "Table 2: fixed variance", tuple(notes), data, _all_metrics(data, "fixed", context)
    )


def _log_linear(cells: Sequence[Cell], context: Context) -> Iterator[Table]:
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
        _UNITS,
        *_about_weighted(own, "log-linear"),
        *_about_controls(data),
    ]
    if data["closed_form"].notna().any():
        notes.append(f"Closed form: factor analysis, {_ABOUT_FACTOR_ANALYSIS}")
    title = "Beyond the paper: log-linear precision"
    yield Table("log-linear-precision", title, tuple(notes), data, _all_metrics(data, "log-linear", context))
    variances = tables.gradient_variance(own, context)
    parts = _gradient_variances(variances, context)
    if parts:
        notes = [*facts(variances, context), _ABOUT_GRADIENT_VARIANCE]
        yield Table("log-linear-gradient-variance", f"{title}, gradient variance", tuple(notes), variances, parts)


_UNITS = (
    "BPD in bits/dim, KL in nats per image, MSE summed over the D pixels on the [0, 1) scale (times 1000 / D: mean per "
    "pixel in thousandths). Means over seeds."
)


def _all_metrics(data: pd.DataFrame, experiment: str, context: Context) -> tuple[Part, ...]:
    groups: dict[tuple[str, bool], list[dict[tuple[str, str], str | Linked]]] = {}
    for (dataset, name), group in _grouped(data, "dataset", "method"):
        by_metric = {row["metric"]: row for row in _rows(group)}
        bpd, kl, mse = by_metric["bpd"], by_metric["kl"], by_metric[PUBLISHED_MSE]
        method = MethodName.of(experiment, name)
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
                ("BPD", "importance-weighted"): measured(_weighted(by_metric.get(tables.IMPORTANCE_WEIGHTED))),
                ("KL", "mean"): measured(number(kl["measured"], 2)),
                ("KL", "95% interval"): interval(kl["low"], kl["high"], kl["seeds"], 2),
                ("KL", "closed form"): number(kl["closed_form"], 2),
                ("MSE", "mean decoded"): measured(number(by_metric["mse_mean_decoded"]["measured"])),
                ("MSE", "sampled"): measured(number(by_metric["mse_sampled"]["measured"])),
                ("MSE", "sampled and clamped"): measured(number(mse["measured"])),
                ("MSE", "95% interval"): interval(mse["low"], mse["high"], mse["seeds"]),
                ("MSE", "published"): number(mse["published"]),
                ("MSE", "difference"): number(mse["difference"], sign=True),
                **_made_from(bpd),
            }
        )
    return tuple(
        Part.of(f"{_group_name(dataset, experiment, context, beyond)}, linear decoder", rows, headers=2)
        for (dataset, beyond), rows in groups.items()
    )


def _by_guidance(name: str, title: str, metric: str, cells: Sequence[Cell], context: Context) -> Table:
    weighted = tables.importance_weighted(cells, "learnable") if metric == "bpd" else ()
    data = tables.measurements(cells, context, "learnable", (metric, *weighted))
    digits, label = _DIGITS[metric], METRIC_LABELS[metric]
    rows: dict[tuple[str, str], dict[tuple[str, str], str | Linked]] = {}
    details: dict[tuple[str, bool], list[dict[str, str | Linked]]] = {}
    papers: set[tuple[str, str]] = {_FACTOR_ANALYSIS}
    for (dataset, name_of_method), group_of_rows in _grouped(data, "dataset", "method"):
        by_metric = {row["metric"]: row for row in _rows(group_of_rows)}
        row, method = by_metric[metric], MethodName.of("learnable", name_of_method)
        key = (method.space, method.estimator_label)
        if not method.beyond:
            papers.add(key)
        cell = rows.setdefault(key, {("", "Posterior"): key[0], ("", "Estimator"): key[1]})
        group = context.title(dataset)
        measured = partial(Linked, target=f"{dataset}/learnable/{name_of_method}")
        cell[(group, _COLUMNS[method.guidance])] = measured(_with_interval(row, digits))
        cell[(group, f"published {method.guidance}")] = number(row["published"], 2)
        details.setdefault((group, method.beyond), []).append(
            {
                "Posterior": method.space,
                "Method": method.label,
                label: measured(number(row["measured"], digits)),
                "sd": number(row["sd"], digits),
                "95% interval": interval(row["low"], row["high"], row["seeds"], digits),
                "Published": number(row["published"], 2),
                "Difference": number(row["difference"], digits, sign=True),
                **({"Monte-Carlo error": monte_carlo(row["monte_carlo_error"])} if metric == "bpd" else {}),
                "Importance-weighted": measured(_weighted(by_metric.get(tables.IMPORTANCE_WEIGHTED))),
                **{column: text for (_, column), text in _made_from(row).items()},
            }
        )
    for dataset in dict.fromkeys(row["dataset"] for row in _rows(data)):
        reached = tables.factor_analysis(context, dataset, "learnable", metric)
        if not math.isnan(reached):
            key = _FACTOR_ANALYSIS
            cell = rows.setdefault(key, {("", "Posterior"): key[0], ("", "Estimator"): key[1]})
            cell[(context.title(dataset), "without SG")] = number(reached, digits)
    notes = [
        *facts(data, context),
        f"{label} in {'bits/dim' if metric == 'bpd' else 'nats per image'}: mean over seeds with its 95% Student "
        "interval. SG: the silent gradient of a linear decoder guides the encoder. A star marks a cell whose status, "
        "in its details below, says more.",
        *_about_published(data),
    ]
    notes += [*_about_controls(data), *(_about_weighted(cells, "learnable") if weighted else [])]
    if len(data) and data["closed_form"].notna().any():
        notes.append(f"Factor analysis: {_ABOUT_FACTOR_ANALYSIS}")
    if any(row["guidance"] == "with sampled guide" for row in _rows(data)):
        notes.append(
            "Sampled guide: the same guide and schedule with a gradient that is estimated as the reported decoder's; "
            "what it lacks beside SG is silence alone."
        )
    groups = [(group, column) for group in dict.fromkeys(group for group, _ in details) for column in _GUIDANCE]
    parts = []
    for beyond in (False, True):
        compact = [
            {column: row.get(column, NOTHING) for column in (*_ROW_NAMES, *groups)}
            for key, row in rows.items()
            if (key not in papers) == beyond
        ]
        if compact:
            caption = f"{'Beyond the paper: ' if beyond else ''}{label} without and with silent gradients"
            parts.append(Part.of(caption, compact, headers=2))
    for (group, beyond), lines in details.items():
        mark = f", {_BEYOND}" if beyond else ""
        caption = f"{group}, {EXPERIMENTS['learnable']}{mark}: {label} in detail"
        parts.append(Part.of(caption, lines, 2, folded=True))
    return Table(name, title, tuple(notes), data, tuple(parts))


_ABOUT_FACTOR_ANALYSIS = (
    "a linear mean and a variance per pixel, the same for every image, with the same latent dimension; fitted "
    "to the training images and valued on the report split. A linear decoder whose variance depends on a continuous "
    "code contains it, and should come out no worse."
)
_ROW_NAMES = (("", "Posterior"), ("", "Estimator"))
_FACTOR_ANALYSIS = ("Continuous", "Factor analysis")
_BEYOND = "beyond the paper"
_COLUMNS = {guidance: guidance for guidance in GUIDANCE[:2]} | {GUIDANCE[2]: f"{GUIDANCE[2]} ({_BEYOND})"}
_GUIDANCE = (*_COLUMNS.values(), *(f"published {guidance}" for guidance in GUIDANCE[:2]))


def _equal_budgets(found: Sequence[Claim], records: Sequence[Record], context: Context) -> Table:
    data = equal_budgets(found, records, context)
    parts = []
    for (dataset, experiment), group in _grouped(data, "dataset", "experiment"):
        rows = [
            {
                "Ordering": " < ".join(MethodName.of(experiment, row[side]).label for side in ("first", "second")),
                "Tried": f"{row['tried_first']} and {row['tried_second']}",
                "Best of all": f"{number(row['best_first'])} and {number(row['best_second'])}",
                "Equal budget": str(row["budget"]),
                "Expected best": f"{number(row['expected_first'])} and {number(row['expected_second'])}",
                "Difference": number(row["expected_first"] - row["expected_second"], sign=True),
            }
            for row in _rows(group)
        ]
        parts.append(
            Part.of(f"{_group_name(dataset, experiment, context)}: BPD at equal budgets", rows, 1, folded=True)
        )
    notes = (
        f"Preset {context.preset}, protocol {context.protocol}.",
        "BPD on the selection split, one seed. A method that tried more configurations is selected among more: the "
        "expected best is that of as many as the other tried, drawn at random without replacement from all of its own.",
        "A guided method takes over its baseline's learning rate; the baseline's trials of rates are the baseline's.",
    )
    return Table("equal-budgets", "Equal budgets", notes, data, tuple(parts))


def _grid(records: Sequence[Record], context: Context) -> Table:
    data = tables.grid(records, context)
    parts = []
    for (dataset, experiment), group in _grouped(data, "dataset", "experiment"):
        rows = [
            {
                "Method": MethodName.of(experiment, row["method"]).label,
                "Point": row["point"] or "the only one",
                "Selected": "selected" if row["selected"] else "",
                "BPD": Linked(number(row["selection_bpd"]), row["name"]),
                "Monte-Carlo error": monte_carlo(row["monte_carlo_error"]),
                "KL": Linked(number(row["selection_kl"], 2), row["name"]),
                "Split": row["split"] or NOTHING,
                "Seed": str(row["seed"]),
                "Epochs": str(row["epochs"]),
                "Status": row["status"] if math.isfinite(row["selection_bpd"]) else Linked(row["status"], row["name"]),
            }
            for row in _rows(group)
        ]
        caption = f"{_group_name(dataset, experiment, context)}: grid of {len(rows)} runs"
        parts.append(Part.of(caption, rows, 2, folded=True))
    notes = (
        *facts(data, context),
        "Every configuration that was tried, best first by the BPD on the selection split; one seed each.",
    )
    return Table("grid", "Hyperparameter grids", notes, data, tuple(parts))


def _made_from(row: dict[str, Any]) -> dict[tuple[str, str], str]:
    configurations = row["configurations"]
    return {
        ("Runs", "Seeds"): str(row["seeds"]),
        ("Runs", "Epochs"): str(row["epochs"]) or NOTHING,
        ("Runs", "Configurations tried"): NOTHING if pd.isna(configurations) else f"{configurations:.0f}",
        ("Runs", "Status"): str(row["status"]),
    }


def _with_interval(row: dict[str, Any], digits: int) -> str:
    if not row["seeds"]:
        return str(row["status"])
    star = "" if row["status"] == "complete" else " *"
    bounds = "(one seed)" if row["seeds"] == 1 else interval(row["low"], row["high"], row["seeds"], digits)
    return f"{number(row['measured'], digits)} {bounds}{star}"


def _pairs_interval(low: float, high: float, pairs: int, digits: int) -> str:
    if pairs == 1:
        return "one pair: none"
    return NOTHING if math.isnan(low) else f"[{number(low, digits, True)}, {number(high, digits, True)}]"


def _group_name(dataset: str, experiment: str, context: Context, beyond: bool = False) -> str:
    return f"{context.title(dataset)}, {EXPERIMENTS[experiment]}{f', {_BEYOND}' if beyond else ''}"


_MAY_BE_EMPTY = ("with sampled guide", "published", "difference", "closed form", "importance-weighted")


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame without columns that may be empty, as those on the paper, where they are."""

    def is_empty(column: tuple[str, str] | str) -> bool:
        name = (column[1] if isinstance(column, tuple) else column).lower()
        return name.startswith(_MAY_BE_EMPTY) and bool(frame[column].eq(NOTHING).all())

    # A difference of two methods that were not run is news; one to a paper that has no number is not.
    empty = [column for column in frame.columns if is_empty(column) and "Verdict" not in frame.columns]
    return frame.drop(columns=empty)


def _grouped(frame: pd.DataFrame, *keys: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Groups of rows by text columns, in order of appearance; none of an empty frame, which has no columns."""
    if len(frame):
        for values, rows in frame.groupby(list(keys), sort=False):
            yield tuple(map(str, values)), rows


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _row(cells: Sequence[str]) -> str:
    escape: Callable[[str], str] = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    return f"| {' | '.join(escape(str(cell)) for cell in cells)} |"
