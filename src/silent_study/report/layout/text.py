"""Numbers as text."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "–"
METRIC_LABELS = {
    "bpd": "BPD",
    "kl": "KL",
    "mse_mean_decoded": "MSE, mean decoded",
    "mse_sampled": "MSE, sampled",
    "mse_sampled_clamped": "MSE, sampled and clamped",
    "epochs_to_threshold": "epochs to threshold",
}
DIGITS = {"bpd": 3, "kl": 2, "epochs_to_threshold": 1}


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


def pairs_interval(low: float, high: float, pairs: int, digits: int) -> str:
    """The ends of an interval of paired differences, or why there is none."""
    if pairs == 1:
        return "one pair: none"
    return NOTHING if math.isnan(low) else f"[{number(low, digits, True)}, {number(high, digits, True)}]"


def monte_carlo(error: float) -> str:
    """The error that the latent samples leave, or that there is none because no sample was needed."""
    return "exact" if error == 0 else number(error, 4)


def weighted_text(row: dict[str, Any] | None) -> str:
    """An importance-weighted bound with its Monte-Carlo error; a dash where it was not asked for."""
    if row is None or math.isnan(row["measured"]):
        return NOTHING
    return f"{number(row['measured'])} ± {number(row['monte_carlo_error'], 4)}"


def probability(value: float) -> str:
    """A p-value to three decimals."""
    return "<0.001" if value < 0.0005 else number(value)


def significant(value: float) -> str:
    """Three significant digits, for numbers of any size; those below a hundred billion without an exponent."""
    if math.isnan(value):
        return NOTHING
    rounded = float(f"{value:.3g}")
    text = f"{rounded:,.0f}" if 1000 <= abs(rounded) < 1e11 else f"{value:.3g}"
    return text.replace("-", "−")
