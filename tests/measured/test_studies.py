"""The studies kept in ``measured/``: their tables follow from their runs, and the pages' verdicts from both."""

import math
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from docs import pictures, tables

REPOSITORY = Path(__file__).resolve().parents[2]
EXPERIMENTS = ("fixed", "learnable")
"""Those of the paper's orderings."""
STUDIES = sorted(path.parent for path in (REPOSITORY / "measured").glob("*/metrics.json"))
studies = pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)


@cache
def seeds_of(study: Path) -> pd.DataFrame:
    """Return the runs that a study's cells are reported from."""
    runs = pd.read_csv(study / "runs.csv", dtype={"rounds": str})
    return runs[runs["rounds"].str.split("+").map(lambda rounds: "seeds" in rounds)].copy()


def reported(study: Path, cell: str, metric: str) -> pd.Series:
    """Return a metric of a cell's runs by seed."""
    runs = seeds_of(study)[seeds_of(study)["cell"] == cell]
    column = metric if metric == "epochs_to_threshold" else f"report_{metric}"
    return runs.set_index("seed")[column].dropna()


def check_interval(values: pd.Series, row: pd.Series, mean: str, largest: float = 1.0) -> None:
    # Numbers are kept with nine digits; a difference of two such has fewer, the more so the larger they are.
    assert values.mean() == pytest.approx(row[mean], rel=1e-7, abs=1e-8 * largest)
    if len(values) > 1 and values.std() > 0:
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), rel=1e-5, abs=1e-6)


def differences(study: Path, row: pd.Series) -> tuple[pd.Series, float]:
    """Return the paired differences of an ordering, and the size of what they are differences of."""
    group = f"{row['dataset']}/{row['experiment']}"
    first, second = (reported(study, f"{group}/{row[side]}", row["metric"]) for side in ("first", "second"))
    return (first - second).dropna(), max(1.0, first.abs().max(), second.abs().max())


def test_the_pages_know_every_study() -> None:
    assert set(tables.STUDIES) == {study.name for study in STUDIES}


@studies
def test_means_and_intervals_follow_from_the_runs(study: Path) -> None:
    checked = 0
    for table in (study / "tables").glob("*.csv"):
        for _, row in pd.read_csv(table).iterrows():
            if "measured" in row and row["seeds"] and row["metric"] != "epochs_to_threshold":
                cell = f"{row['dataset']}/{row['experiment']}/{row['method']}"
                values = reported(study, cell, row["metric"])
                assert len(values) == row["seeds"]
                check_interval(values, row, "measured")
                checked += 1
    assert checked


@studies
def test_orderings_follow_from_the_runs(study: Path) -> None:
    kept = study / "tables" / "claims.csv"
    if not kept.exists():
        rows = pd.concat(pd.read_csv(path) for path in (study / "tables").glob("table-[234]*.csv"))
        assert len(set(rows.dropna(subset="published")["method"])) == 1, "one method has nothing to be ordered"
        return
    claims = pd.read_csv(kept)
    assert len(claims)
    for _, row in claims.iterrows():
        found, largest = differences(study, row)
        assert len(found) == row["pairs"]
        if "family" in row:  # gathered since verdicts have a size
            assert row["verdict"] == tables.compare_claim(study.name, row).verdict
        # Epochs are read from evaluations some epochs apart, which a gathering of today counts as well.
        if len(found) < 2 or ("family" in row and row["metric"] == "epochs_to_threshold"):
            continue
        check_interval(found, row, "difference", largest)
        if "family" in row:
            continue
        side = row["high"] if row["expected"] == "lower" else -row["low"]
        other = -row["low"] if row["expected"] == "lower" else row["high"]
        assert row["verdict"] == ("holds" if side < 0 else "fails" if other < 0 else "undecided")
        if found.std() > 0:
            assert row["p"] == pytest.approx(stats.ttest_1samp(found, 0.0).pvalue, rel=1e-4)


@studies
def test_collapsed_runs_are_those_near_the_prior_or_without_an_active_unit(study: Path) -> None:
    runs = seeds_of(study).dropna(subset="report_kl")
    lost = (runs["report_kl"] < 5) | (runs["report_active_units"] == 0)
    for cell, members in runs.groupby("cell"):
        assert tables.collapsed(study.name, str(cell)) == dict(zip(members["seed"], lost[members.index], strict=True))


def test_differences_are_those_of_equal_seeds(capsys) -> None:
    study, group = REPOSITORY / "measured" / "digits-pixel-variances", "digits"
    pairs = [
        ("two-layer/silent-gaussian", "log-linear/silent-gaussian"),
        ("two-layer/silent-bernoulli", "learnable/gumbel-softmax"),
    ]
    tables.differences(study.name, group, *pairs)
    head, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.strip().splitlines()]
    assert head[1] == "mean [95 %], n = 6"
    for row, names in zip(rows, pairs, strict=True):
        first, second = (reported(study, f"{group}/{name}", "bpd") for name in names)
        low, high = stats.ttest_1samp(first - second, 0.0).confidence_interval(0.95)
        assert row[1] == f"{(first - second).mean():.3f} [{low:.3f}, {high:.3f}]"
        assert row[2] == ("above" if low > 0 else "below" if high < 0 else "undecided")
    assert rows[1][3].rstrip(" |") == "collapsed 5 and 2"


def test_a_look_has_the_repeated_interval_of_its_pairs(monkeypatch, capsys) -> None:
    study, group = REPOSITORY / "measured" / "mnist-sequential", "mnist/learnable"
    unguided, guided = (reported(study, f"{group}/reparameterization{end}", "bpd") for end in ("", "+silent"))
    gains = (unguided - guided).dropna()
    for bound, end in ((8.85, "goes on"), (1e-3, "ends")):
        monkeypatch.setitem(tables.LOOKS, len(gains), bound)
        tables.look(study.name, f"{group}/reparameterization+silent", f"{group}/reparameterization")
        middle, half = gains.mean(), bound * stats.sem(gains)
        said = f"{len(gains)} pairs: {middle:.3f} [{middle - half:.3f}, {middle + half:.3f}], a repeated interval"
        assert f"{said}; the study {end}." in capsys.readouterr().out


@pytest.mark.parametrize("study", [study for study in STUDIES if (study / "tables" / "claims.csv").exists()])
def test_adjusted_p_values_are_those_of_holm(study: Path) -> None:
    """The paper's orderings in each metric are a family, ours another; all of the paper's in earlier studies."""
    claims = pd.read_csv(study / "tables" / "claims.csv").dropna(subset="p")
    for _, family in claims.groupby(claims["family"] if "family" in claims else claims["basis"] == "ours"):
        values = family["p"].to_numpy()
        for value, adjusted in zip(values, family["p_holm"], strict=True):
            smaller = np.sort(values)[: int((values <= value).sum())]
            expected = max(min(1.0, (len(values) - rank) * p) for rank, p in enumerate(smaller))
            assert adjusted == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return a function from two cells' bits/dim by seed to the verdict on "first below second" and its title."""

    def judge(
        first: list[float],
        second: list[float],
        size: float = math.nan,
        active: int = 20,
        epochs: tuple[int, int] = (10, 10),
        metric: str = "bpd",
    ) -> str:
        column = "epochs_to_threshold" if metric == "epochs_to_threshold" else f"report_{metric}"
        rows = [
            {
                "cell": f"mnist/fixed/{name}",
                "seed": seed,
                column: value,
                "report_active_units": active if (place, seed) == (1, 0) else 20,
                "setting.epochs": epochs[place],
                "setting.evaluate_every": 2,
                "setting.threshold_bpd": 6.73,
            }
            for place, (name, values) in enumerate((("silent-gaussian", first), ("reparameterization", second)))
            for seed, value in enumerate(values)
        ]
        monkeypatch.setattr(tables, "runs", lambda _: pd.DataFrame(rows))
        tables.cell.cache_clear()
        found = np.subtract(first, second)
        low = high = found[0]
        if len(found) > 1 and found.std() > 0:
            low, high = stats.ttest_1samp(found, 0.0).confidence_interval(0.95)
        claim = SimpleNamespace(
            dataset="mnist",
            experiment="fixed",
            first="silent-gaussian",
            second="reparameterization",
            metric=metric,
            expected="lower",
            pairs=len(found),
            low=low,
            high=high,
            published_difference=size,
        )
        return f"{tables.verdict('a study', claim)}{' †' if '†' in tables.ordering('a study', claim) else ''}"

    yield judge
    tables.cell.cache_clear()


LOW, HIGH = [1.0, 1.1, 1.2], [2.0, 2.2, 2.1]


@pytest.mark.parametrize(
    ("first", "second", "options", "expected"),
    [
        (LOW, HIGH, {}, "same direction"),
        (LOW, HIGH, {"size": -1.0}, "reproduced so far"),
        (LOW * 2, HIGH * 2, {"size": -1.0}, "reproduced"),
        (LOW, HIGH, {"size": -0.1}, "same direction, other size"),
        (HIGH, LOW, {"size": -1.0}, "contradicted"),
        (LOW, [1.1, 1.0, 1.25], {"size": -1.0}, "undecided"),
        (LOW, HIGH, {"epochs": (10, 20)}, "same direction †"),
        (LOW, HIGH, {"size": -1.0, "active": 0}, "not comparable: collapsed 1 of 3; others "),
        ([26.0] * 3, [28.0] * 3, {"metric": "epochs_to_threshold", "size": -45.0}, "undecided"),
        ([20.0] * 3, [28.0] * 3, {"metric": "epochs_to_threshold", "size": -45.0}, "same direction, other size"),
        ([1.0], [2.0], {"size": -1.0}, "one seed"),
    ],
)
def test_a_verdict_has_a_sign_a_size_and_a_comparable_baseline(judged, first, second, options, expected) -> None:
    found = judged(first, second, **options)
    assert found.startswith(expected) if expected.endswith(" ") else found == expected


def test_the_pictures_name_every_study_and_are_those_of_the_documents(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(pictures, "FIGURES", tmp_path)
    drawn = {path.name: texts(path) for path in pictures.draw()}
    for name, found in drawn.items():
        assert found == texts(REPOSITORY / "docs" / "figures" / name), f"{name}: make tables draws it anew"
    forests = {text for name, found in drawn.items() if name.startswith("forest") for text in found}
    shown = {text.split(": ")[1] for text in forests if ": " in text}
    ordered = {name for name in tables.STUDIES for claim in tables.claims(name) if claim.experiment in EXPERIMENTS}
    assert shown == {name for name in ordered if "beyond" not in name}


def test_the_overview_has_every_study_and_the_differences_of_its_runs(capsys) -> None:
    tables.gallery()
    lines = [[part.strip() for part in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    found = {line[0]: line for line in lines if len(line) > 1}
    assert {name.split("`")[1] for name in found if "`" in name} == set(tables.STUDIES)
    study, place = (
        REPOSITORY / "measured" / "colour-reduced-cooldown",
        "[`colour-reduced-cooldown`](colour.md), CIFAR-10",
    )
    cells = [reported(study, f"cifar10/learnable/{name}", "bpd") for name in tables.PAIRS[0]]
    assert found[place][6] == f"{(cells[0] - cells[1]).mean():.3f} ●"


def test_every_page_of_a_study_has_a_picture_and_all_are_short() -> None:
    folder = REPOSITORY / "docs" / "results"
    for page in {*tables.STUDIES.values(), "baselines.md", "guide.md", "../hidden-settings.md"}:
        assert re.search(r"\]\((\.\./)?figures/", (folder / page).read_text()), page
    pages = (*folder.glob("*.md"), folder.with_suffix(".md"))
    texts = [re.sub("<!--.*?-->", "", path.read_text(), flags=re.DOTALL) for path in pages]
    # Words, without the marks of tables and the calls that make them.
    assert sum(bool(re.search(r"\w", word)) for text in texts for word in text.split()) <= 6000


def texts(picture: Path) -> list[str]:
    """Return the texts of a picture: titles, labels and ticks."""
    return re.findall(r"<text[^>]*>(.*?)</text>", picture.read_text(), re.DOTALL)


def test_gains_have_exact_tests_and_those_of_pairs_without_a_collapsed_run(monkeypatch, capsys) -> None:
    """Six pairs that all favour the guide, three rescues: 2 of 64 signs, and 2 of 8 orders of the discordant pairs."""
    kls = {"": [1.0, 2.0, 3.0, 20.0, 21.0, 22.0], "+silent": [20.0] * 6}
    bounds = {"": [3.0, 3.1, 3.2, 2.2, 2.3, 2.4], "+silent": [2.0, 2.1, 2.2, 2.1, 2.1, 2.1]}

    def arms(_: str, name: str) -> dict[str, pd.DataFrame]:
        end = "+silent" if name.endswith("+silent") else ""
        active = [5 if end else 0, *[5] * 5]
        return {"as it is": pd.DataFrame({"bpd": bounds[end], "kl": kls[end], "active_units": active})}

    monkeypatch.setattr(tables, "arms", arms)
    tables.gains("a study", ("digits/learnable/reparameterization", "as it is"))
    row = [part.strip() for part in capsys.readouterr().out.strip().splitlines()[-1].strip("|").split("|")]
    assert row[2:4] == ["2.700", "2.100"]
    assert row[4].startswith("0.600 [")
    assert row[5:7] == [f"{2 / 64:.3f}", f"3 and 0; {2 / 8:.3f}"]
    low, high = stats.ttest_1samp([0.1, 0.2, 0.3], 0.0).confidence_interval(0.95)
    assert row[7] == f"0.200 [{low:.3f}, {high:.3f}], 3"
    tables.remedies("a study", "digits/learnable/reparameterization")
    assert "| *none* | 2.700 |  |  | 3 (1) |" in capsys.readouterr().out


def test_a_gain_is_parted_by_pairs(capsys) -> None:
    tables.parts("digits-guide", "digits/learnable/reparameterization")
    row = [part.strip() for part in capsys.readouterr().out.strip().splitlines()[-1].strip("|").split("|")]
    file = REPOSITORY / "measured" / "digits-guide" / "pixels-digits-learnable-reparameterization.csv"
    bounds = pd.read_csv(file).pivot_table(index="seed", columns="method")
    for printed, part in zip(row[2:], ("constant", "background", "strokes", "kl"), strict=True):
        gained = bounds[part]["reparameterization"] - bounds[part]["reparameterization+silent"]
        low, high = stats.ttest_1samp(gained, 0.0).confidence_interval(0.95)
        digits = 4 if abs(gained.mean()) < 0.01 else 3
        assert printed == f"{gained.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
