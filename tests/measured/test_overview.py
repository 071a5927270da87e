"""The tables of verdicts in docs/results.md are those of the studies."""

import re
from collections.abc import Iterator

import pandas as pd
import pytest
from tests.measured.kept import FIXED, MEASURED, QUOTED, REPOSITORY

METHODS = FIXED | {f"{title} + SG": f"{name}+silent" for title, name in FIXED.items()}
METRICS = {
    "bits/dim": "bpd",
    "squared error": "mse_sampled_clamped",
    "epochs to a threshold": "epochs_to_threshold",
    "KL": "kl",
}


def verdicts() -> Iterator[tuple[str, str, str, str]]:
    """Experiment, study, ordering and what is said of it, of the tables of verdicts."""
    overview = (REPOSITORY / "docs" / "results.md").read_text()
    for experiment, text in re.findall(r"\n### With a (fixed|learnable) variance\n(.*?)(?=\n##)", overview, re.DOTALL):
        lines = re.findall(r"^\|.*\|$", text, re.MULTILINE)
        (_, *orderings), _, *rows = ([entry.strip() for entry in line.split("|")[1:-1]] for line in lines)
        for study, *entries in rows:
            for ordering, said in zip(orderings, entries, strict=True):
                yield experiment, study, ordering, said


def claim(study: str, dataset: str | None, experiment: str, ordering: str) -> pd.Series | None:
    """What a study has of an ordering, ``None`` if it lacks one of the methods, or one never got to the threshold."""
    claims = pd.read_csv(REPOSITORY / "measured" / study / "tables" / "claims.csv")
    pair, metric = ordering.split(", ")
    first, second = re.split(" below | above ", pair)
    found = claims[
        (claims["experiment"] == experiment)
        & (claims["dataset"] == (dataset or claims["dataset"].iloc[0]))
        & (claims["first"] == METHODS[first])
        & (claims["second"] == METHODS[second])
        & (claims["metric"] == METRICS[metric])
        & claims["difference"].notna()
    ]
    assert len(found) <= 1
    return None if found.empty else found.iloc[0]


VERDICTS = list(verdicts())


def test_both_tables_of_verdicts_are_read() -> None:
    orderings = {(experiment, ordering) for experiment, _, ordering, _ in VERDICTS}
    assert [experiment for experiment, _ in sorted(orderings)] == ["fixed"] * 7 + ["learnable"] * 7


@pytest.mark.parametrize(("experiment", "row", "ordering", "said"), VERDICTS)
def test_verdicts_of_the_overview_are_those_of_the_studies(experiment: str, row: str, ordering: str, said: str) -> None:
    study, *dataset = re.findall(r"`([^`]+)`", row)
    found = claim(study, dataset[0] if dataset else None, experiment, ordering)
    if found is None:
        assert said == ""
    elif found["pairs"] == 1:
        came_out = (found["difference"] < 0) == (found["expected"] == "lower")
        assert said == ("*comes out*" if came_out else "*does not*")
    elif found["verdict"] == "holds" and found["p_holm"] < 0.05:
        assert said == "**holds**"
    else:
        assert said == found["verdict"]


@pytest.mark.parametrize("study", [study.name for study in MEASURED])
def test_the_overview_leads_to_every_study(study: str) -> None:
    assert f"-{study})" in (REPOSITORY / "docs" / "results.md").read_text(), (
        "the anchor of its heading ends in its name"
    )


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_what_is_quoted_in_short_is_quoted_from_a_study(document: str) -> None:
    """The studies' own quotations are compared with their runs by ``test_every_study.py``."""
    pages = "".join(page.read_text() for page in (REPOSITORY / "docs" / "results").glob("*.md"))
    known = {tuple(number.lstrip("-") for number in quoted) for quoted in QUOTED.findall(pages)}
    known |= {(mean, high, low) for mean, low, high in known}  # "below by" turns a difference's sign
    text = (REPOSITORY / document).read_text()
    assert {tuple(number.lstrip("-") for number in quoted) for quoted in QUOTED.findall(text)} <= known
