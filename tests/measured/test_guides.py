"""What docs/results/ says of the guide's rates and form follows from the runs kept."""

import json
from statistics import fmean

import pandas as pd
import pytest
from studies.sensitivity import paired
from tests.measured.kept import REPOSITORY, in_one_line, results_on, table_rows


def selected(name: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Metrics of the images to select on, by cell and change, a row per seed."""
    kept = json.loads((REPOSITORY / "measured" / "sensitivity-mnist-reduced" / f"{name}.json").read_text())
    return {
        cell: {change: pd.DataFrame([run["selection"] for run in runs]) for change, runs in changes.items()}
        for cell, changes in kept.items()
    }


def test_what_is_said_of_guided_reparameterization() -> None:
    section, runs = results_on("The guide's rates and its form"), selected("guides")
    unguided = runs["mnist/learnable/reparameterization"]["as it is"]["bpd"].tolist()
    guided = {name: of["bpd"].tolist() for name, of in runs["mnist/learnable/reparameterization+silent"].items()}
    expected = {"unguided": (unguided, "")} | {
        f"guided, {change}": (bounds, paired(unguided, bounds)) for change, bounds in guided.items()
    }
    rows = table_rows(section)
    for title, (bounds, gain) in expected.items():
        assert rows[title] == [", ".join(f"{bound:.3f}" for bound in bounds), f"{fmean(bounds):.3f}", gain]
    harm = paired(guided["guide_rates*5"], guided["as it is"])
    assert f"ends {harm.lstrip('+').rstrip(' *')} above" in in_one_line(section)
    assert all(high > usual for high, usual in zip(guided["guide_rates*5"], guided["as it is"], strict=True))


@pytest.mark.parametrize("change", ["as it is", "guide=log-linear", "guide_rates*5", "guide_rates*20"])
def test_what_is_said_of_the_silent_gradient_alone(change: str) -> None:
    part = results_on("The guide's rates and its form").partition('"None, continuous"')[2]
    rows = table_rows(part)
    (run,) = selected("guide-alone")["mnist/learnable/silent-gaussian"][change].to_dict("records")
    assert rows[change] == [f"{run['bpd']:.3f}", f"{run['kl']:.1f}", str(run["active_units"])]
