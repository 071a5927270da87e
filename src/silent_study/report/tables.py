"""The report's numbers as data frames.

BPD is in bits/dim, KL in nats per image, MSE summed over pixels on the [0, 1) scale. ``low`` and ``high`` bound the
95% Student interval of the mean over seeds. An empty field is a number that does not exist; ``status`` has the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from silent_study.paper import PUBLISHED_MSE, published
from silent_study.report.cells import Cell, Context, Record, described, each_once, revision, run_status
from silent_study.report.statistics import mean_error, summarize
from silent_study.settings import EXPERIMENTS

ALL_METRICS = ("bpd", "kl", "mse_mean_decoded", "mse_sampled", PUBLISHED_MSE)
REDUCTIONS = {"batch_mean": "batch mean", "per_image_mean": "per-image mean"}
IMPORTANCE_WEIGHTED = "importance_weighted_bpd"
DIGEST = 12
"""Digits of a data set's digest in tables."""

_ERRORS = {"bpd": "bpd_mc_error", IMPORTANCE_WEIGHTED: "importance_weighted_mc_error"}
_LIMITS = {
    "bpd": "bpd",
    "kl": "kl",
    "mse_mean_decoded": "mean_decoded_squared_error",
    "mse_sampled": "expected_squared_error",
}
_MADE_BY = ("device", "hardware", "seconds", "images_per_second", "started")


def measurements(cells: Sequence[Cell], context: Context, experiment: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Return reported metrics beside the published values: one row per cell of an experiment and metric.

    Table 2 is ``("fixed", ALL_METRICS)``, Table 3 ``("learnable", ["bpd"])``, Table 4 ``("learnable", ["kl"])``, the
    table of the log-linear precision ``("log-linear", ALL_METRICS)``. The metrics are followed by the
    importance-weighted bound if BPD is one of them and a run was evaluated with it. ``closed_form`` is the value of the
    linear model with a known optimum (fixed variance: probabilistic PCA; otherwise factor analysis).
    """
    chosen = [cell for cell in cells if cell.experiment == experiment]
    weighted = "bpd" in metrics and any(cell.values(IMPORTANCE_WEIGHTED) for cell in chosen)
    rows = []
    for cell in chosen:
        reports = [run.metrics("report") for run in cell.evaluated]
        for metric in (*metrics, *[IMPORTANCE_WEIGHTED] * weighted):
            summary, reference = summarize(list(cell.values(metric).values())), number(published(cell.name, metric))
            errors = [report.get(_ERRORS.get(metric, "")) for report in reports]
            rows.append(
                {
                    **_identification(cell, context),
                    "metric": metric,
                    "measured": summary.mean,
                    **{key: getattr(summary, key) for key in ("sd", "low", "high")},
                    "seeds": summary.n,
                    "published": reference,
                    "difference": summary.mean - reference,
                    "monte_carlo_error": mean_error([error for error in errors if error is not None]),
                    "closed_form": limit(cell, metric, context),
                    **{key: described([report[key] for report in reports]) for key in ("split", "images", "samples")},
                    "epochs": described([run.result["epochs"] for run in cell.evaluated]),
                    "configurations": cell.configurations,
                    "status": cell.status,
                }
            )
    return pd.DataFrame(rows)


def gradient_variance(cells: Sequence[Cell], context: Context) -> pd.DataFrame:
    """Return Table 1: variance of the encoder's gradient over draws of the latent variables, summed over parameters.

    ``batch_mean`` is the variance of the gradient of the batch's mean reconstruction loss, ``per_image_mean`` the mean
    over images of the variance of each image's gradient. There is one row per cell, estimator and epoch; a cell of the
    experiment with a fixed variance that has no measurement has one row with empty numbers.
    """
    rows = []
    for cell in cells:
        points: dict[tuple[float, str], list[dict[str, Any]]] = {}
        for run in cell.evaluated:
            for entry in run.evaluation["gradient_variance"] if run.evaluation else ():
                for estimator, values in entry["estimators"].items():
                    points.setdefault((entry["epoch"], estimator), []).append({**entry, **values})
        experiment = EXPERIMENTS[cell.experiment]
        if not points and experiment.fixed_variance:
            points[math.nan, ""] = []
        zero = cell.dataset == "mnist" and cell.method.sampled_estimator == "none" and experiment.in_paper
        for (epoch, estimator), entries in sorted(points.items()):
            row = {**_identification(cell, context), "epoch": epoch, "estimated_with": estimator}
            for reduction in REDUCTIONS:
                summary = summarize([entry[reduction] for entry in entries])
                row[reduction] = summary.mean
                row |= {f"{reduction}_{key}": getattr(summary, key) for key in ("sd", "low", "high")}
            row |= {"published": 0.0 if zero else math.nan, "seeds": len(entries)}
            row |= {key: described([entry[key] for entry in entries]) for key in ("images", "draws")}
            rows.append(row | {"status": cell.status})
    return pd.DataFrame(rows).astype({"epoch": "Int64"}) if rows else pd.DataFrame()


def runs(records: Sequence[Record]) -> pd.DataFrame:
    """Return one row per run, even if it belongs to several rounds: its settings, its results and its origin."""
    rounds: dict[str, set[str]] = {}
    for record in records:
        rounds.setdefault(record.name, set()).add(record.round)
    results, settings, made_by = [], [], []
    for run in each_once(records):
        splits = {"selection": run.metrics("selection"), "report": run.metrics("report"), "train": run.metrics("train")}
        evaluated = {f"{split}_{key}": value for split, metrics in splits.items() for key, value in metrics.items()}
        result: Mapping[str, Any] = run.result
        results.append(
            {
                "name": run.name,
                "cell": run.cell,
                "rounds": "+".join(sorted(rounds[run.name])),
                "seed": run.seed,
                "status": run_status(run),
                **{key: result[key] for key in ("diverged_epoch", "flattened", "epochs", "epochs_to_threshold")},
                **{key: value for key, value in evaluated.items() if not isinstance(value, Mapping | list)},
            }
        )
        # Without a silent gradient its settings are empty columns, not one of their common name.
        settings.append({f"setting.{key}": value for key, value in leaves(run.settings) if key != "silent"})
        provenance: Mapping[str, Any] = run.provenance
        origin = {key: provenance.get(key) for key in _MADE_BY}
        made_by.append({"revision": revision(run), **origin, "replaces": run.identity["replaces"]})
    return pd.concat([pd.DataFrame(columns) for columns in (results, settings, made_by)], axis=1)


def curves(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """Return the learning curves of the selected runs by cell: the selection split's BPD by epoch.

    There is one row per evaluated epoch, one column per seed, and last the mean over the seeds that have not diverged
    by then. A cell whose seeds all diverged before the first evaluation has no curve.
    """
    seeds: dict[str, dict[str, pd.Series[float]]] = {}
    for run in sorted(records, key=lambda record: (record.cell, record.seed)):
        if run.round == "seeds":
            seeds.setdefault(run.cell, {})[f"seed_{run.seed}"] = run.curve.set_index("epoch")["selection_bpd"]
    frames = {cell: pd.DataFrame(columns).dropna(how="all") for cell, columns in seeds.items()}
    means = {cell: frame.assign(selection_bpd=frame.mean(axis=1)) for cell, frame in frames.items() if len(frame)}
    return {cell: frame.reset_index() for cell, frame in means.items()}


def curves_by_group(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """Return the ``curves`` of all methods by ``data set/experiment``, for ``dvc plots``, with a column ``method``."""
    groups = groupby(curves(records).items(), key=lambda entry: entry[0].rpartition("/")[0])
    frames = {group: {cell.rpartition("/")[2]: curve for cell, curve in members} for group, members in groups}
    return {group: pd.concat(members, names=["method"]).reset_index("method") for group, members in frames.items()}


def metrics(cells: Sequence[Cell], context: Context) -> dict[str, Any]:
    """Return the tree of ``metrics.json``: ``cell_metrics`` by data set, experiment and method, without ids."""
    tree: dict[str, Any] = {"preset": context.preset, "protocol": context.protocol}
    for cell in cells:
        tree.setdefault(cell.dataset, {}).setdefault(cell.experiment, {})[cell.method.name] = cell_metrics(cell)
    return tree


def cell_metrics(cell: Cell) -> dict[str, float]:
    """Return means over seeds by name, without those that do not exist; ``mse`` is compared with the published one."""
    names = {"bpd": "bpd", IMPORTANCE_WEIGHTED: IMPORTANCE_WEIGHTED, "kl": "kl", "mse": PUBLISHED_MSE}
    found = {name: summarize(list(cell.values(metric).values())) for name, metric in names.items()}
    entry: dict[str, float] = {name: summary.mean for name, summary in found.items()}
    entry |= {"bpd_sd": found["bpd"].sd, "seeds": found["bpd"].n, "diverged": len(cell.diverged)}
    entry["epochs"] = max((run.result["epochs"] for run in cell.evaluated), default=math.nan)
    return {key: value for key, value in entry.items() if not math.isnan(value)}


def _identification(cell: Cell, context: Context) -> dict[str, Any]:
    data = [run.settings["data"] for run in cell.runs]
    manifest = context.datasets.get(cell.dataset, {})
    digests = [entry["sha256"] for entry in data] or [manifest.get("sha256", "")]
    return {
        "preset": context.preset,
        "protocol": described([entry["protocol"] for entry in data]) or context.protocol,
        "dataset": cell.dataset,
        "data_version": str(manifest.get("version", "")),
        "data_sha256": described([digest[:DIGEST] for digest in digests]),
        "experiment": cell.experiment,
        "posterior": cell.method.posterior,
        "estimator": cell.method.sampled_estimator,
        "silent": cell.method.silent,
        "guidance": cell.method.guidance,
        "beyond_paper": cell.method.beyond or not EXPERIMENTS[cell.experiment].in_paper,
        "method": cell.method.name,
    }


def limit(cell: Cell, metric: str, context: Context) -> float:
    """Return what the experiment's linear model reaches in a metric; only Gaussian latent variables have one."""
    if metric not in _LIMITS or cell.method.posterior != "gaussian":
        return math.nan
    if not EXPERIMENTS[cell.experiment].fixed_variance:
        return number(context.factor_analysis.get(f"{cell.dataset}/{cell.experiment}", {}).get(_LIMITS[metric]))
    limits = [run.evaluation["limit"] for run in cell.evaluated if run.evaluation]
    return summarize([limit[_LIMITS[metric]] for limit in limits if limit]).mean


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a run's settings by dotted name, lists of whole numbers as ``2x3x4``, others as ``0.9, 0.999``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            between = "x" if all(isinstance(entry, int) for entry in value) else ", "
            yield f"{prefix}{key}", between.join(map(str, value))
        else:
            yield f"{prefix}{key}", value


def number(value: float | None) -> float:
    """Return a number; ``nan`` for ``None``."""
    return math.nan if value is None else float(value)
