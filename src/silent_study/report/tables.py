"""Every table of the report as numbers: pure functions from runs to data frames.

BPD in bits/dim, KL in nats per image, MSE summed over pixels on the [0, 1) scale. ``low`` and ``high`` bound the 95%
Student interval of the mean over seeds. An empty field is a number that does not exist; ``status`` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from silent_study.methods import METHODS
from silent_study.paper import PUBLISHED_MSE, published
from silent_study.report.claims import Claim
from silent_study.report.context import Context, Record
from silent_study.report.summary import Cell, described, mean_error, revision, summarize
from silent_study.settings import EXPERIMENTS

ALL_METRICS = ("bpd", "kl", "mse_mean_decoded", "mse_sampled", "mse_sampled_clamped")
REDUCTIONS = ("batch_mean", "per_image_mean")
IMPORTANCE_WEIGHTED = "importance_weighted_bpd"
_ERRORS = {"bpd": "bpd_mc_error", IMPORTANCE_WEIGHTED: "importance_weighted_mc_error"}
_LIMITS = {
    "bpd": "bpd",
    "kl": "kl",
    "mse_mean_decoded": "mean_decoded_squared_error",
    "mse_sampled": "expected_squared_error",
}
_DIGEST = 12
_PARTS: tuple[Literal["selection", "report", "train"], ...] = ("selection", "report", "train")
_MADE_BY = ("revision", "device", "hardware", "seconds", "images_per_second", "started", "replaces")


def measurements(cells: Sequence[Cell], context: Context, experiment: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Reported metrics beside the published values: one row per cell of an experiment and metric.

    Table 2 is ``("fixed", ALL_METRICS)``, Table 3 ``("learnable", ["bpd"])``, Table 4 ``("learnable", ["kl"])``; that
    of the log-linear precision is ``("log-linear", ALL_METRICS)``.

    Args:
        cells: Cells of the plan with their runs.
        context: The plan.
        experiment: ``fixed``, ``learnable`` or ``log-linear``.
        metrics: Names of metrics, as an evaluation has them.

    Returns:
        Measured mean over seeds, sd, interval, published value, difference to it, Monte-Carlo error of the mean,
        value of the linear model with a known optimum (fixed variance: probabilistic PCA; otherwise factor analysis),
        and what the numbers were made from.
    """
    rows = []
    for cell in cells:
        if cell.experiment != experiment:
            continue
        for metric in metrics:
            values = list(cell.values(metric).values())
            summary, reference = summarize(values), published(cell.name, metric)
            errors = [run.metrics("report").get(_ERRORS.get(metric, "")) for run in cell.evaluated]
            rows.append(
                {
                    **_identification(cell, context),
                    "metric": metric,
                    "measured": summary.mean,
                    "sd": summary.sd,
                    "low": summary.low,
                    "high": summary.high,
                    "seeds": summary.n,
                    "published": _number(reference),
                    "difference": summary.mean - _number(reference),
                    "monte_carlo_error": mean_error([error for error in errors if error is not None]),
                    "closed_form": _limit(cell, metric, context),
                    **_circumstances(cell),
                }
            )
    return _ordered(pd.DataFrame(rows), last=("split", "images", "samples", "epochs", "configurations", "status"))


def importance_weighted(cells: Sequence[Cell], experiment: str) -> tuple[str, ...]:
    """The importance-weighted bound's name as a metric, where some run of the experiment was evaluated with one."""
    measured = any(cell.values(IMPORTANCE_WEIGHTED) for cell in cells if cell.experiment == experiment)
    return (IMPORTANCE_WEIGHTED,) if measured else ()


def gradient_variance(cells: Sequence[Cell], context: Context) -> pd.DataFrame:
    """Table 1: variance of the encoder's gradient under resampling of the code, summed over parameters.

    Two reductions of the reconstruction loss over the batch are told apart: ``batch_mean`` is the variance of the
    gradient of the mean loss, ``per_image_mean`` the mean over images of the variance of each image's gradient. One row
    per cell, estimator and epoch; a cell without a measurement has one row with empty numbers.
    """
    rows = []
    for cell in cells:
        points: dict[tuple[float, str], list[dict[str, Any]]] = {}
        for run in cell.evaluated:
            for entry in run.evaluation["gradient_variance"] if run.evaluation else ():
                for estimator, values in entry["estimators"].items():
                    points.setdefault((entry["epoch"], estimator), []).append({**entry, **values})
        experiment = EXPERIMENTS[cell.experiment]
        if not points and not experiment.fixed_variance:
            continue
        known = cell.dataset == "mnist" and cell.method.sampled_estimator == "none" and experiment.in_paper
        # Without snapshots there is nothing to average; the row stays, so that the cell is not silently left out.
        for (epoch, estimator), entries in sorted(points.items()) or [((math.nan, ""), [])]:
            row = {**_identification(cell, context), "epoch": epoch, "estimated_with": estimator}
            for reduction in REDUCTIONS:
                summary = summarize([entry[reduction] for entry in entries])
                row |= {reduction: summary.mean, f"{reduction}_sd": summary.sd}
                row |= {f"{reduction}_low": summary.low, f"{reduction}_high": summary.high}
            row |= {
                "published": 0.0 if known else math.nan,
                "seeds": len(entries),
                "images": described([entry["images"] for entry in entries]),
                "draws": described([entry["draws"] for entry in entries]),
                "status": cell.status,
            }
            rows.append(row)
    return pd.DataFrame(rows).astype({"epoch": "Int64"}) if rows else pd.DataFrame(rows)


def claim_table(found: Sequence[Claim], context: Context) -> pd.DataFrame:
    """Paired differences on equal seeds, first minus second, with the verdict on the ordering."""
    return pd.DataFrame(
        [
            {
                "preset": context.preset,
                "protocol": context.protocol,
                "dataset": claim.first.dataset,
                "experiment": claim.first.experiment,
                "first": claim.first.method.name,
                "second": claim.second.method.name,
                "metric": claim.metric,
                "expected": "lower" if claim.expected < 0 else "higher",
                "basis": claim.basis,
                "difference": claim.difference.mean,
                "low": claim.difference.low,
                "high": claim.difference.high,
                "p": claim.p_value,
                "p_holm": claim.adjusted,
                "pairs": claim.difference.n,
                "seeds_without_pair": claim.unpaired,
                "published_difference": claim.published_difference,
                "verdict": claim.verdict,
            }
            for claim in found
        ]
    )


@dataclass(frozen=True)
class GridPoint:
    """A configuration that a selection compared.

    Attributes:
        axes: The settings in which the points of its grid differ, with its values.
        selected: Whether the reported runs are of this point.
    """

    run: Record
    axes: tuple[tuple[str, Any], ...]
    selected: bool

    @property
    def bpd(self) -> float:
        """The selection split's BPD, which the selection goes by; ``nan`` of a diverged run."""
        return math.nan if self.run.diverged else self.run.final_bpd


def grid_points(records: Sequence[Record], context: Context) -> list[GridPoint]:
    """Every configuration that was compared: cells in the paper's order, each cell's best first."""
    grids: dict[tuple[str, str], dict[str, Record]] = {}
    for run in records:
        if run.round != "seeds":
            grids.setdefault((run.cell, run.round), {})[run.name] = run
    used = {_point(run) for run in records if run.round == "seeds"}
    points = [
        GridPoint(run, axes, _point(run) in used or _is_selected(run, context))
        for members in grids.values()
        for run, axes in _with_axes(list(members.values()), context)
    ]

    def order(point: GridPoint) -> tuple[Any, ...]:
        run, bpd = point.run, point.bpd
        method = METHODS[run.experiment][run.method]
        return (
            run.dataset,
            run.experiment,
            method.rank,
            run.round,
            math.isnan(bpd),
            0 if math.isnan(bpd) else bpd,
            run.name,
        )

    return sorted(points, key=order)


def grid(records: Sequence[Record], context: Context) -> pd.DataFrame:
    """Every grid point that was compared, in the order of the selection split's BPD, the selected one marked."""
    rows = []
    for point in grid_points(records, context):
        run = point.run
        selection = run.metrics("selection")
        rows.append(
            {
                "preset": context.preset,
                "protocol": run.settings["data"]["protocol"],
                "dataset": run.dataset,
                "data_sha256": run.settings["data"]["sha256"][:_DIGEST],
                "experiment": run.experiment,
                "method": run.method,
                "round": run.round,
                "point": ", ".join(f"{axis}={value}" for axis, value in point.axes),
                "selected": point.selected,
                "split": selection.get("split", ""),
                "selection_bpd": point.bpd,
                "monte_carlo_error": _number(selection.get("bpd_mc_error")),
                "selection_kl": _number(selection.get("kl")),
                "seed": run.seed,
                "epochs": run.result["epochs"],
                "status": run_status(run),
                "name": run.name,
            }
        )
    return pd.DataFrame(rows)


def runs(records: Sequence[Record]) -> pd.DataFrame:
    """One row per run, whichever rounds ask for it: its settings, its results and what made it."""
    rounds: dict[str, list[str]] = {}
    for record in records:
        rounds.setdefault(record.name, []).append(record.round)
    rows = []
    for run in sorted({record.name: record for record in records}.values(), key=lambda record: record.name):
        metrics = {part: run.metrics(part) for part in _PARTS}
        rows.append(
            {
                "name": run.name,
                "cell": run.cell,
                "rounds": "+".join(sorted(set(rounds[run.name]))),
                "seed": run.seed,
                "status": run_status(run),
                "diverged_epoch": run.result["diverged_epoch"],
                "flattened": run.result["flattened"],
                "epochs": run.result["epochs"],
                "epochs_to_threshold": run.result["epochs_to_threshold"],
                **{
                    f"{split}_{key}": value
                    for split, found in metrics.items()
                    for key, value in found.items()
                    if not isinstance(value, Mapping | list)
                },
                # Without a silent gradient its settings are empty columns, not one of their common name.
                **{f"setting.{key}": value for key, value in leaves(run.settings) if key != "silent"},
                "revision": revision(run),
                "device": run.provenance.get("device"),
                "hardware": run.provenance.get("hardware"),
                "seconds": run.provenance.get("seconds"),
                "images_per_second": run.provenance.get("images_per_second"),
                "started": run.provenance.get("started"),
                "replaces": run.identity.get("replaces"),
            }
        )
    frame = pd.DataFrame(rows)
    last = [*(name for name in frame.columns if name.startswith("setting.")), *_MADE_BY] if rows else []
    return _ordered(frame, last)


def curves(records: Sequence[Record]) -> dict[str, pd.DataFrame]:
    """Learning curves of the selected runs by cell, for ``dvc plots``: the selection split's BPD by epoch.

    One row per epoch that was evaluated, one column per seed, and last the mean over the seeds that have not diverged
    by then, which is what DVC draws, even where it is not told so. A cell whose seeds diverged before the first
    evaluation has no curve.
    """
    seeds: dict[str, dict[str, pd.Series[float]]] = {}
    for run in sorted(records, key=lambda record: (record.cell, record.seed)):
        if run.round == "seeds":
            seeds.setdefault(run.cell, {})[f"seed_{run.seed}"] = run.curve.set_index("epoch")["selection_bpd"]
    frames = {cell: pd.DataFrame(columns).dropna(how="all") for cell, columns in seeds.items()}
    return {
        cell: frame.assign(selection_bpd=frame.mean(axis=1)).reset_index()
        for cell, frame in frames.items()
        if len(frame)
    }


def metrics(cells: Sequence[Cell], context: Context) -> dict[str, Any]:
    """The tree of ``metrics.json``: means over seeds by data set, experiment and method, without ids.

    A number that does not exist has no key. ``mse`` is the flavour that is compared with the published one.
    """
    tree: dict[str, Any] = {"preset": context.preset, "protocol": context.protocol}
    for cell in cells:
        names = ("bpd", "kl", PUBLISHED_MSE, IMPORTANCE_WEIGHTED)
        values = {name: summarize(list(cell.values(name).values())) for name in names}
        entry: dict[str, Any] = {
            "bpd": values["bpd"].mean,
            "bpd_sd": values["bpd"].sd,
            IMPORTANCE_WEIGHTED: values[IMPORTANCE_WEIGHTED].mean,
            "kl": values["kl"].mean,
            "mse": values[PUBLISHED_MSE].mean,
            "seeds": values["bpd"].n,
            "diverged": len(cell.diverged),
        }
        if cell.evaluated:
            entry["epochs"] = max(run.result["epochs"] for run in cell.evaluated)
        variance = gradient_variance([cell], context)
        if not variance.empty:
            measured = variance[variance["seeds"] > 0]
            entry["gradient_variance"] = {
                str(row.epoch): {reduction: getattr(row, reduction) for reduction in REDUCTIONS}
                for row in measured.itertuples()
            }
        present = {
            key: value
            for key, value in entry.items()
            if value != {} and not (isinstance(value, float) and math.isnan(value))
        }
        tree.setdefault(cell.dataset, {}).setdefault(cell.experiment, {})[cell.method.name] = present
    return tree


def _identification(cell: Cell, context: Context) -> dict[str, Any]:
    data = [run.settings["data"] for run in cell.runs]
    manifest = context.datasets.get(cell.dataset, {})
    digests = [entry["sha256"] for entry in data] or [manifest.get("sha256", "")]
    return {
        "preset": context.preset,
        "protocol": described([entry["protocol"] for entry in data]) or context.protocol,
        "dataset": cell.dataset,
        "data_version": str(manifest.get("version", "")),
        "data_sha256": described([digest[:_DIGEST] for digest in digests]),
        "experiment": cell.experiment,
        "posterior": cell.method.posterior,
        "estimator": cell.method.sampled_estimator,
        "silent": cell.method.silent,
        "guidance": cell.method.guidance,
        "beyond_paper": cell.method.beyond or not EXPERIMENTS[cell.experiment].in_paper,
        "method": cell.method.name,
    }


def _circumstances(cell: Cell) -> dict[str, Any]:
    reports = [run.metrics("report") for run in cell.evaluated]
    return {
        **{key: described([report[key] for report in reports]) for key in ("split", "images", "samples")},
        "epochs": described([run.result["epochs"] for run in cell.evaluated]),
        "configurations": cell.configurations,
        "status": cell.status,
    }


def factor_analysis(context: Context, dataset: str, experiment: str, metric: str) -> float:
    """What factor analysis reaches on a data set; ``nan`` where it was not asked for."""
    return _number(context.factor_analysis.get(f"{dataset}/{experiment}", {}).get(_LIMITS[metric]))


def _limit(cell: Cell, metric: str, context: Context) -> float:
    """What the linear model of the experiment reaches in a metric; only Gaussian latents have one."""
    if metric not in _LIMITS or cell.method.posterior != "gaussian":
        return math.nan
    if not EXPERIMENTS[cell.experiment].fixed_variance:
        return factor_analysis(context, cell.dataset, cell.experiment, metric)
    limits = [run.evaluation["limit"] for run in cell.evaluated if run.evaluation]
    return summarize([limit[_LIMITS[metric]] for limit in limits if limit]).mean


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A run's settings by dotted name, lists of whole numbers as ``2x3x4``, others as ``0.9, 0.999``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            between = "x" if all(isinstance(entry, int) for entry in value) else ", "
            yield f"{prefix}{key}", between.join(map(str, value))
        else:
            yield f"{prefix}{key}", value


def _with_axes(grid: Sequence[Record], context: Context) -> Iterator[tuple[Record, tuple[tuple[str, Any], ...]]]:
    """The runs of one grid with the settings in which they differ; a grid of one point has its declared axes."""
    every = [dict(leaves(run.settings)) for run in grid]
    names = dict.fromkeys(name for settings in every for name in settings if name != "seed")
    varied = [name for name in names if len({str(settings.get(name)) for settings in every}) > 1]
    for run, settings in zip(grid, every, strict=True):
        declared = [axis for axis in context.grid_axes.get(run.cell, ()) if axis in settings]
        yield run, tuple((axis, settings.get(axis)) for axis in varied or declared)


def _point(run: Record) -> str:
    """A run's settings but for its seed: runs of one grid point agree in it."""
    return str(sorted((name, str(value)) for name, value in leaves(run.settings) if name != "seed"))


def _is_selected(run: Record, context: Context) -> bool:
    selection = context.selections.get(run.cell, {})
    return selection.get("run") == run.name and selection.get("status") != "diverged"


def run_status(run: Record) -> str:
    """What became of a run, for people."""
    if run.diverged:
        epoch = run.result["diverged_epoch"]
        return "diverged" if epoch is None else f"diverged (epoch {epoch})"
    return "finished" if run.result["flattened"] else "finished, not flattened"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _ordered(frame: pd.DataFrame, last: Sequence[str]) -> pd.DataFrame:
    return frame[[*(column for column in frame.columns if column not in last), *last]] if len(frame) else frame
