"""What docs/results/ says of the guide's rates and form follows from the runs kept."""

from statistics import fmean

import pytest
from studies.sensitivity import paired
from tests.measured.kept import in_one_line, results_on, sensitivity, table_rows

HEADING = "The guide's rates and its form"


def bounds(document: str, cell: str) -> dict[str, list[float]]:
    """Bits/dim of the images to select on, by change, a number per seed."""
    return {change: [run["selection"]["bpd"] for run in runs] for change, runs in sensitivity(document, cell).items()}


def test_what_is_said_of_guided_reparameterization() -> None:
    rows, said = table_rows(results_on(HEADING)), in_one_line(results_on(HEADING))
    unguided = bounds("guides", "learnable/reparameterization")["as it is"]
    guided = bounds("guides", "learnable/reparameterization+silent")
    expected = {"unguided": (unguided, "")} | {
        f"guided, {change}": (values, paired(unguided, values)) for change, values in guided.items()
    }
    for title, (values, gain) in expected.items():
        assert rows[title] == [", ".join(f"{value:.3f}" for value in values), f"{fmean(values):.3f}", gain]
    harm = paired(guided["guide_rates*5"], guided["as it is"])
    assert f"ends {harm.lstrip('+').rstrip(' *')} above" in said
    assert all(high > usual for high, usual in zip(guided["guide_rates*5"], guided["as it is"], strict=True))


@pytest.mark.parametrize("change", ["as it is", "guide=log-linear", "guide_rates*5", "guide_rates*20"])
def test_what_is_said_of_the_silent_gradient_alone(change: str) -> None:
    rows = table_rows(results_on(HEADING).partition('"None, continuous"')[2])
    (run,) = sensitivity("guide-alone", "learnable/silent-gaussian")[change]
    final, guide = run["selection"], run["guide_bits_per_dim"]["4"]
    assert rows[change] == [f"{guide:.3f}", f"{final['bpd']:.3f}", f"{final['kl']:.1f}", str(final["active_units"])]
