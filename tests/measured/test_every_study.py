"""The studies kept in ``measured/``: their numbers follow from their runs, and what the docs quote is among them."""

import math
import re
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scipy import stats
from tests.measured.kept import MEASURED, QUOTED, REPOSITORY, reported, results_on

NAMES = [study.name for study in MEASURED]
studies = pytest.mark.parametrize("study", MEASURED, ids=NAMES)


def check_interval(values: pd.Series, row: pd.Series, mean: str, largest: float = 1.0) -> None:
    # Numbers are kept with nine digits; a difference of two such has fewer, the more so the larger they are.
    assert values.mean() == pytest.approx(row[mean], rel=1e-7, abs=1e-8 * largest)
    if len(values) > 1 and values.std() > 0:
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-5, abs=1e-6)


def test_there_are_measured_studies() -> None:
    assert "mnist-reduced" in NAMES


def test_dvc_shows_every_study() -> None:
    shown = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())
    names = {f"measured/{name}" for name in NAMES}
    assert {Path(path).parent.as_posix() for path in shown["metrics"]} == names
    assert {Path(path).parent.as_posix() for entry in shown["plots"] for path in entry} == names


@studies
def test_means_and_intervals_follow_from_the_runs(study: Path) -> None:
    checked = 0
    for table in (study / "tables").glob("table-[234]*.csv"):
        for _, row in pd.read_csv(table).iterrows():
            if row["seeds"] and row["metric"] != "epochs_to_threshold":
                cell = f"{row['dataset']}/{row['experiment']}/{row['method']}"
                values = reported(study, cell, row["metric"])
                assert len(values) == row["seeds"]
                check_interval(values, row, "measured")
                checked += 1
    assert checked


@studies
def test_verdicts_follow_from_the_runs(study: Path) -> None:
    kept = study / "tables" / "claims.csv"
    if not kept.exists():
        rows = pd.concat(pd.read_csv(path) for path in (study / "tables").glob("table-[234]*.csv"))
        assert len(set(rows.dropna(subset="published")["method"])) == 1, "one method has nothing to be ordered"
        return
    claims = pd.read_csv(kept)
    assert len(claims)
    for _, row in claims.iterrows():
        group = f"{row['dataset']}/{row['experiment']}"
        first, second = (reported(study, f"{group}/{row[side]}", row["metric"]) for side in ("first", "second"))
        differences = (first - second).dropna()
        assert len(differences) == row["pairs"]
        if row["pairs"] < 2:
            continue
        check_interval(differences, row, "difference", max(1.0, first.abs().max(), second.abs().max()))
        side = row["high"] if row["expected"] == "lower" else -row["low"]
        other = -row["low"] if row["expected"] == "lower" else row["high"]
        assert row["verdict"] == ("holds" if side < 0 else "fails" if other < 0 else "undecided")


@studies
def test_quoted_intervals_are_those_of_the_tables(study: Path) -> None:
    known = set()

    def know(mean: float, low: float, high: float) -> None:
        for digits in (1, 2, 3, 4):
            for numbers in ((mean, low, high), (-mean, -high, -low)):  # "below by" turns a difference's sign
                known.add(tuple(f"{round(number, digits) + 0.0:.{digits}f}" for number in numbers))

    for table, mean in product((study / "tables").glob("*.csv"), ("measured", "difference")):
        rows = pd.read_csv(table)
        if {mean, "low", "high"} <= set(rows.columns):
            for numbers in rows[[mean, "low", "high"]].itertuples(index=False):
                if not any(map(math.isnan, numbers)):
                    know(*numbers)
    # Also the paired differences of any two cells of an experiment.
    runs = pd.read_csv(study / "runs.csv")
    for first, second in permutations(sorted(runs["cell"].unique()), 2):
        if first.rpartition("/")[0] == second.rpartition("/")[0]:
            differences = (reported(study, first, "bpd") - reported(study, second, "bpd")).dropna()
            if len(differences) > 1:
                interval = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
                know(differences.mean(), interval.low, interval.high)
    quoted = [
        tuple(text.replace("−", "-") for text in match) for match in QUOTED.findall(results_on(f"`{study.name}`"))
    ]
    assert quoted or not known, "a study with several seeds is quoted with intervals"
    assert [numbers for numbers in quoted if numbers not in known] == []


ROWS_OF_TABLES_3_AND_4 = {
    "None, continuous": ("", "silent-gaussian"),
    "Reparameterization": ("reparameterization", "reparameterization+silent"),
    "None, discrete": ("", "silent-bernoulli"),
    "Gumbel-Softmax": ("gumbel-softmax", "gumbel-softmax+silent"),
    "REINFORCE": ("reinforce", "reinforce+silent"),
}
COLUMNS_OF_TABLES_3_AND_4 = {
    "bits/dim without SG": ("bpd", "measured"),
    "bits/dim, published": ("bpd", "published"),
    "KL without SG": ("kl", "measured"),
    "KL, published": ("kl", "published"),
}


def quoted_cells(part: str) -> Iterator[tuple[str, str, str, str]]:
    """Method, metric, kind of number and text of the entries of Tables 3 and 4 in a part of docs/results/.

    Columns come in pairs, without and with SG, of which the first has the heading.
    """
    for table in re.findall(r"^\| \| bits/dim without SG .*\n(?:\|.*\n)+", part, re.MULTILINE):
        header, _, *rows = ([entry.strip() for entry in line.split("|")[1:-1]] for line in table.splitlines())
        for title, *entries in rows:
            methods = ROWS_OF_TABLES_3_AND_4.get(title.split(", all ")[0], ())
            for (column, (metric, kind)), (offset, method) in product(
                COLUMNS_OF_TABLES_3_AND_4.items(), enumerate(methods)
            ):
                if method and column in header:
                    yield method, metric, kind, entries[header.index(column) - 1 + offset]


@pytest.mark.parametrize(
    "name",
    [
        "mnist-reduced",
        "mnist-reduced-protocol-paper",
        "colour-reduced",
        "colour-reduced-protocol-paper",
        "colour-reduced-cooldown",
        "digits-ten-seeds",
        "digits-cooldown",
    ],
)
def test_tables_3_and_4_are_quoted_method_by_method(name: str) -> None:
    tables = (REPOSITORY / "measured" / name / "tables").glob("table-[34]*.csv")
    measured = pd.concat(map(pd.read_csv, tables)).set_index(["dataset", "method", "metric"])
    datasets = measured.index.unique("dataset")
    quoted = set()
    for part in results_on(f"`{name}`").split("\n### "):
        # A study of several data sets names that of a table in the heading above it.
        dataset = next((each for each in datasets if f"`{each}`" in part.splitlines()[0]), datasets[0])
        for method, metric, kind, text in quoted_cells(part):
            value, digits = measured.loc[(dataset, method, metric), kind], len(text.split(" ")[0].partition(".")[2])
            assert text.split(" ")[0] == f"{value:.{digits}f}", (dataset, method, metric)
            quoted.add((dataset, method, metric, kind))
    assert len(quoted) >= 2 * 8 * len(datasets)
