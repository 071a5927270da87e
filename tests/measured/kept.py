"""Reading the studies kept in ``measured/`` and what the docs say of them."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

REPOSITORY = Path(__file__).resolve().parents[2]
MEASURED = sorted(path.parent for path in (REPOSITORY / "measured").glob("*/metrics.json"))
# Titles of the rows of Tables 1 and 2 in docs/results/.
FIXED = {
    "Silent (Gaussian)": "silent-gaussian",
    "Reparameterization": "reparameterization",
    "Silent (Bernoulli)": "silent-bernoulli",
    "Gumbel-Softmax": "gumbel-softmax",
    "Straight-through Gumbel-Softmax": "straight-through-gumbel-softmax",
    "REINFORCE": "reinforce",
    "REINFORCE, baseline per image": "reinforce-per-datum",
}
# A value and the interval behind it.
QUOTED = re.compile(r"([-−]?\d+\.\d+)\s+\[([-−]?\d+\.\d+),\s+([-−]?\d+\.\d+)\]")


def results() -> str:
    """docs/results.md and the pages of docs/results/, one after another."""
    docs = REPOSITORY / "docs"
    return "\n".join(page.read_text() for page in [docs / "results.md", *sorted((docs / "results").glob("*.md"))])


def results_on(heading: str) -> str:
    """The section of ``results`` whose heading has a text in it."""
    return _section(results(), heading)


def hidden_settings_on(heading: str) -> str:
    """The same of docs/hidden-settings.md."""
    return _section((REPOSITORY / "docs" / "hidden-settings.md").read_text(), heading)


def _section(text: str, heading: str) -> str:
    sections = re.split(r"^##? ", text, flags=re.MULTILINE)
    (section,) = (section for section in sections if heading in section.partition("\n")[0])
    return section


def in_one_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def reported(study: Path, cell: str, metric: str) -> pd.Series:
    """A metric of the runs that a cell is reported from, by seed."""
    runs = pd.read_csv(study / "runs.csv", dtype={"rounds": str})
    runs = runs[(runs["cell"] == cell) & runs["rounds"].str.split("+").map(lambda rounds: "seeds" in rounds)]
    column = metric if metric == "epochs_to_threshold" else f"report_{metric}"
    return runs.set_index("seed")[column].dropna()


def sensitivity(document: str, cell: str) -> dict[str, list[dict[str, Any]]]:
    """The runs of a cell in a document of ``measured/sensitivity-mnist-reduced``, by change, a run per seed."""
    path = REPOSITORY / "measured" / "sensitivity-mnist-reduced" / f"{document}.json"
    cells: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(path.read_text())
    return cells[f"mnist/{cell}"]


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a text by their first entry."""
    rows = ([entry.strip() for entry in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE))
    return {first.strip("`*"): entries for first, *entries in rows}


def table(study: str, name: str) -> pd.DataFrame:
    """A table of a study by method and metric or, of gradient variances, by method and epoch."""
    rows = pd.read_csv(REPOSITORY / "measured" / study / "tables" / f"{name}.csv")
    return rows.set_index(["method", "epoch" if "epoch" in rows else "metric"])


def rounded(variance: float) -> str:
    """A gradient variance as docs/results/ has it, in three digits."""
    return f"{float(f'{variance:.3g}'):,.0f}"


def line_of_decided_bits() -> tuple[float, float, float]:
    """Error, sampled and clamped, against bits/dim where decoders are trained on bits: slope, intercept, residual."""
    runs = pd.read_csv(REPOSITORY / "measured" / "mnist-beyond" / "runs.csv")
    runs = runs[(runs["setting.experiment"] == "fixed") & (runs["setting.posterior"] == "bernoulli")]
    runs = runs[~runs["setting.method"].str.contains("gumbel") & (runs["selection_bpd"] < 8)]
    assert len(runs) == 19
    line = stats.linregress(runs["selection_bpd"], runs["selection_mse_sampled_clamped"])
    residuals = runs["selection_mse_sampled_clamped"] - line.slope * runs["selection_bpd"] - line.intercept
    return line.slope, line.intercept, residuals.abs().max()


def off_the_line(bits_per_dim: float, error: float) -> float:
    """How far an error is above ``line_of_decided_bits`` at a bound."""
    slope, intercept, _ = line_of_decided_bits()
    return error - slope * bits_per_dim - intercept


def kl_left(bits_per_dim: float, error: float) -> float:
    """KL in nats that a bound leaves with an error of samples: 784 pixels, variance 0.01, 256 levels."""
    constant = 8 + 0.5 * math.log2(2 * math.pi * 0.01)
    return (bits_per_dim - constant) * 784 * math.log(2) - error / (2 * 0.01)
