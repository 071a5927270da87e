"""Seeds to numbers: means, Student intervals, paired differences, and what became of a cell's runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from silent_study.methods import METHODS, Method
from silent_study.report.context import Context, Record
from silent_study.settings import EXPERIMENTS

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean of independent values with its Student interval; ``nan`` where there are too few of them.

    Attributes:
        n: Number of values.
        sd: Standard deviation with ``n - 1`` in the denominator.
        low: Lower end of the 95% interval of the mean.
        high: Upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student's 95% interval of the mean: ``mean +- t(n - 1) sd / sqrt(n)``.

    One value has no interval and no value has no mean: both are ``nan``.
    """
    n = len(values)
    if n == 0:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    mean = float(np.mean(values))
    if n == 1:
        return Summary(1, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit

    sd = float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def p_value(summary: Summary) -> float:
    """Student's two-sided p-value of the mean against zero: below 0.05 where the 95% interval is clear of zero.

    ``nan`` for fewer than two values; 0 for equal values that are not zero.
    """
    if summary.n < 2:
        return math.nan
    if summary.sd == 0:
        return float(summary.mean == 0)
    from scipy.special import stdtr

    return 2 * float(stdtr(summary.n - 1, -abs(summary.mean) * math.sqrt(summary.n) / summary.sd))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's step-down procedure (1979), valid however they depend on each other.

    ``nan`` stays ``nan`` and does not count.
    """
    ascending = sorted((value, place) for place, value in enumerate(p_values) if not math.isnan(value))
    adjusted, largest = [math.nan] * len(p_values), 0.0
    for done, (value, place) in enumerate(ascending):
        largest = adjusted[place] = max(largest, min(1.0, (len(ascending) - done) * value))
    return adjusted


def mean_error(errors: Sequence[float]) -> float:
    """Monte-Carlo error of a mean of independent values with the given errors: ``sqrt(sum e^2) / n``."""
    return math.sqrt(sum(error**2 for error in errors)) / len(errors) if errors else math.nan


@dataclass(frozen=True)
class Cell:
    """A cell of the plan with the runs of its selected point.

    Attributes:
        runs: Every seed's run, by seed.
        configurations: Number of grid points that the selection compared; ``None`` before a selection.
        grid_diverged: Whether every grid point diverged, so that there was nothing to select.
        asked_seeds: Number of runs that the plan asks for.
    """

    name: str
    dataset: str
    experiment: str
    method: Method
    runs: tuple[Record, ...]
    configurations: int | None
    grid_diverged: bool
    asked_seeds: int

    @property
    def evaluated(self) -> tuple[Record, ...]:
        """The finished runs with an evaluation of the report split."""
        return tuple(run for run in self.runs if not run.diverged and run.metrics("report"))

    @property
    def diverged(self) -> tuple[Record, ...]:
        """The runs that diverged."""
        return tuple(run for run in self.runs if run.diverged)

    @property
    def collapsed(self) -> tuple[Record, ...]:
        """The evaluated runs whose codes say nothing of an image: no latent unit is active."""
        return tuple(run for run in self.evaluated if report_value(run, "active_units") == 0)

    @property
    def status(self) -> str:
        """What became of the cell's runs, for people: ``complete`` or everything that limits its numbers."""
        total = len(self.runs)
        if not total:
            return "diverged (every grid point)" if self.grid_diverged else "not run"
        parts = []
        if self.diverged:
            epochs = sorted({epoch for run in self.diverged if (epoch := run.result["diverged_epoch"]) is not None})
            where = f", epoch{'s' * (len(epochs) > 1)} {', '.join(map(str, epochs))}" if epochs else ""
            parts.append(f"diverged ({len(self.diverged)} of {total}{where})")
        if self.collapsed:
            parts.append(f"collapsed ({len(self.collapsed)} of {total})")
        steep = sum(not run.result["flattened"] for run in self.runs if not run.diverged)
        if steep:
            parts.append(f"not flattened ({steep} of {total})")
        unread = total - len(self.diverged) - len(self.evaluated)
        if unread:
            parts.append(f"not evaluated ({unread} of {total})")
        if total < self.asked_seeds:
            parts.append(f"{total} of {self.asked_seeds} seeds run")
        if len({revision(run) for run in self.runs}) > 1:
            parts.append("source revisions differ")
        return "; ".join(parts) or "complete"

    def values(self, metric: str) -> dict[int, float]:
        """A reported metric by seed, over the evaluated runs that have it."""
        return {run.seed: value for run in self.evaluated if (value := report_value(run, metric)) is not None}


def report_value(run: Record, metric: str) -> float | None:
    """A metric of the report split; ``epochs_to_threshold`` is read from the training curve's result."""
    value = run.result["epochs_to_threshold"] if metric == "epochs_to_threshold" else run.metrics("report").get(metric)
    return None if value is None else float(value)


def cells(records: Sequence[Record], context: Context) -> list[Cell]:
    """Every cell of the plan, and every other one with a run of the ``seeds`` round, in the order of the paper."""
    runs: dict[str, dict[str, Record]] = {name: {} for name in context.expected_cells}
    for record in records:
        if record.round == "seeds":
            runs.setdefault(record.cell, {})[record.name] = record
    found = []
    for name, members in runs.items():
        ordered = tuple(sorted(members.values(), key=lambda run: (run.seed, run.name)))
        dataset, experiment, method = name.split("/")
        selection = context.selections.get(name, {})
        found.append(
            Cell(
                name,
                dataset,
                experiment,
                METHODS[experiment][method],
                ordered,
                selection.get("configurations"),
                selection.get("status") == "diverged",
                len(context.seeds),
            )
        )
    return sorted(found, key=_rank)


def revision(run: Record) -> str:
    """Source revision that made a run, short, with a ``+`` for uncommitted changes; ``unknown`` where not recorded."""
    source = run.provenance["source"]
    return f"{source['revision'][:10]}{'+' if source['modified'] else ''}" if source["revision"] else "unknown"


def described(values: Sequence[Any]) -> str:
    """Distinct values in order of appearance, joined by ``/``: one where all agree."""
    return "/".join(dict.fromkeys(str(value) for value in values))


def _rank(cell: Cell) -> tuple[Any, ...]:
    return (cell.dataset, list(EXPERIMENTS).index(cell.experiment), cell.method.rank)
