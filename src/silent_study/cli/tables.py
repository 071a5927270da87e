"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from silent_study.evaluation.estimator_comparison import Comparison
    from silent_study.evaluation.known_limits import KnownLimit
    from silent_study.evaluation.runs import Evaluation

_FILE_WIDTH = 160
"""Width in a file or a pipe, where no line should wrap."""

_ROWS = {
    "bpd": "bits/dim",
    "bpd_mc_error": "  its Monte Carlo error",
    "bpd_median_image": "  median over images",
    "importance_weighted_bpd": "importance-weighted bits/dim",
    "importance_weighted_mc_error": "  its Monte Carlo error",
    "importance_samples": "  samples per image",
    "effective_samples": "  effective samples",
    "kl": "KL, nats per image",
    "mse_mean_decoded": "MSE at the posterior mean",
    "mse_sampled": "MSE of samples",
    "mse_sampled_clamped": "  clamped to [0, 1]",
    "active_units": "active latent variables",
    "saturated_fraction": "saturated bits",
    "samples": "samples per image",
    "images": "images",
}


def console() -> Console:
    """Return the console of the standard output."""
    found = Console(highlight=False)
    if not found.is_terminal:
        found.width = _FILE_WIDTH
    return found


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return an evaluation beside the kept one, where there is one; squared errors are summed over dimensions."""
    columns = [evaluation.metrics] if evaluation.kept is None else [evaluation.metrics, evaluation.kept]
    at = "" if evaluation.epoch is None else f", epoch {evaluation.epoch}"
    headings = ("now", "in the store")[: len(columns)]
    table = _table([f"on {evaluation.metrics['split']}{at}"], headings)
    for key, words in _ROWS.items():
        if any(column.get(key) is not None for column in columns):
            table.add_row(words, *(_number(column.get(key)) for column in columns))
    return table


def _table(words: Sequence[str], numbers: Sequence[str], title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", overflow="fold")
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.5g}"


def comparison_table(comparison: Comparison) -> Table:
    """Return a comparison of estimators."""
    table = _table(["epoch", "estimator"], ["variance", "per image", "bias", "z"])
    for point in comparison.points:
        table.add_row(
            str(point.epoch),
            point.estimator,
            *(f"{number:.3g}" for number in (point.batch_mean, point.per_image_mean, point.bias)),
            f"{point.bias_z:.1f}",
        )
    return table


def limits_table(limits: Sequence[KnownLimit], title: str) -> Table:
    """Return known limits: bits/dim, KL in nats per image, squared errors summed over pixels."""
    # MSE is that of samples, "at mean" that of decoded posterior means.
    numbers = ["bits/dim", "KL", "MSE", "at mean", "used"]
    table = _table(["model", "variance", "fitted", "valued"], numbers, title)
    for known in limits:
        limit = known.limit
        table.add_row(
            known.model,
            "per pixel" if known.variance is None else f"{known.variance:.4g}",
            known.fitted_to,
            known.valued_on,
            f"{limit.bpd:.4f}",
            f"{limit.kl:.2f}",
            f"{limit.expected_squared_error:.3f}",
            f"{limit.mean_decoded_squared_error:.3f}",
            str(limit.used_directions),
        )
    return table
