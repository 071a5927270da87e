"""What docs/results.md says of changed settings on the digits follows from the runs kept."""

import json
import re

from scipy import stats
from tests.measured.kept import REPOSITORY, results_on

SENSITIVITY = REPOSITORY / "measured" / "sensitivity-digits" / "bits_per_dim.json"
ROWS = {
    "Silent (Gaussian)": "fixed/silent-gaussian",
    "Reparameterization": "{}/reparameterization",
    "Silent (Bernoulli)": "fixed/silent-bernoulli",
    "Gumbel-Softmax": "{}/gumbel-softmax",
    "REINFORCE": "{}/reinforce",
    "None, continuous": "learnable/silent-gaussian",
    "None, discrete": "learnable/silent-bernoulli",
}


def change(first: list[float], second: list[float]) -> str:
    differences = [one - other for one, other in zip(first, second, strict=True)]
    interval = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    mean, half = (interval.low + interval.high) / 2, (interval.high - interval.low) / 2
    text = f"{mean:+.3f} ± {half:.3f}"
    return f"**{text}**" if interval.low * interval.high > 0 else text


def test_the_tables_of_changed_settings_follow_from_the_runs() -> None:
    bounds = json.loads(SENSITIVITY.read_text())
    section = results_on("What the lost settings are worth: digits")
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    checked = 0
    for table, experiment, guide in zip(tables, ("fixed", "learnable", "learnable"), ("", "", "+silent"), strict=True):
        header, _, *lines = ([entry.strip() for entry in line.split("|")[1:-1]] for line in table.splitlines())
        for name, *entries in lines:
            setting = name.strip("`*").removesuffix(", bits/dim")
            for method, entry in zip(header[1:], entries, strict=True):
                alone = bounds["digits/" + ROWS[method].format(experiment)]
                guided = bounds.get("digits/" + ROWS[method].format(experiment) + guide)
                usual = alone["as it is"]
                if setting not in guided:
                    assert entry == ""
                elif guide:
                    assert entry == change(alone.get(setting, usual), guided[setting])
                elif setting == "as it is":
                    assert entry == f"*{sum(usual) / len(usual):.3f}*"
                else:
                    assert entry == change(guided[setting], usual)
                checked += bool(entry)
    assert checked > 100
