"""The studies kept in ``measured/``: their numbers follow from their runs, and what the docs quote is among them."""

import json
import math
import re
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from scipy import stats
from studies.sensitivity import paired

REPOSITORY = Path(__file__).resolve().parents[1]
MEASURED = sorted(path.parent for path in (REPOSITORY / "measured").glob("*/metrics.json"))
NAMES = [study.name for study in MEASURED]
studies = pytest.mark.parametrize("study", MEASURED, ids=NAMES)
# In docs/results.md: a value and the interval behind it.
QUOTED = re.compile(r"([-−]?\d+\.\d+) \[([-−]?\d+\.\d+), ([-−]?\d+\.\d+)\]")


def reported(study: Path, cell: str, metric: str) -> pd.Series:
    """A metric of the runs that a cell is reported from, by seed."""
    runs = pd.read_csv(study / "runs.csv", dtype={"rounds": str})
    runs = runs[(runs["cell"] == cell) & runs["rounds"].str.split("+").map(lambda rounds: "seeds" in rounds)]
    column = metric if metric == "epochs_to_threshold" else f"report_{metric}"
    return runs.set_index("seed")[column].dropna()


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
    claims = pd.read_csv(study / "tables" / "claims.csv")
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
    results = (REPOSITORY / "docs" / "results.md").read_text()
    sections = [section for section in results.split("\n## ") if f"`{study.name}`" in section.splitlines()[0]]
    assert sections, f"docs/results.md has no section on {study.name}"
    for section in sections:
        quoted = [tuple(text.replace("−", "-") for text in match) for match in QUOTED.findall(section)]
        assert quoted or not known, "a study with several seeds is quoted with intervals"
        assert [numbers for numbers in quoted if numbers not in known] == []


def test_the_numbers_of_single_trainings_are_those_of_the_table() -> None:
    study = REPOSITORY / "measured" / "mnist-fixed"
    table = pd.read_csv(study / "tables" / "table-2-fixed-variance.csv").set_index(["method", "metric"])["measured"]
    variances = json.loads((study / "metrics.json").read_text())["mnist"]["fixed"]
    results = (REPOSITORY / "docs" / "results.md").read_text()
    (section,) = (part for part in results.split("\n## ") if "`mnist-fixed`" in part.splitlines()[0])
    rows = re.findall(r"^\| ([A-Z].*) \|$", section, re.MULTILINE)
    checked = 0
    for title, cell in ROWS.items():
        method = cell.rpartition("/")[2]
        for name, *entries in (row.split(" | ") for row in rows):
            if name == title and len(entries) == 6:
                assert entries[1] == f"{table[method, 'bpd']:.3f}"
                assert entries[3] == f"{table[method, 'kl']:.2f}"
                assert entries[4] == f"{table[method, 'mse_sampled_clamped']:.3f}"
                checked += 1
            elif name == title:
                for epoch, entry in zip(("10", "45", "90"), entries, strict=True):
                    measured = variances[method]["gradient_variance"][epoch]["batch_mean"]
                    assert entry == f"{float(f'{measured:.3g}'):,.0f}"
                    checked += 1
    assert checked == 5 + 9


def test_what_trained_models_say_of_hidden_settings_follows_from_their_runs() -> None:
    study = REPOSITORY / "measured" / "mnist-fixed"
    runs = pd.read_csv(study / "runs.csv").set_index(["setting.method", "setting.learning_rate"])
    bounds = {str(key): float(bound) for key, bound in runs["selection_bpd"].items()}
    table = pd.read_csv(study / "tables" / "table-2-fixed-variance.csv").set_index(["method", "metric"])
    measured, published, limits = (table[column].to_dict() for column in ("measured", "published", "closed_form"))
    text = (REPOSITORY / "docs" / "hidden-settings.md").read_text().split("## The learning rate\n")[1]
    rates, trained = text.split("## What trained models add\n")
    titles = {"Silent (Gaussian)": "silent-gaussian", "Reparameterization": "reparameterization"}
    for title, method in titles.items():
        high, low = (bounds[str((method, rate))] - 6.719 for rate in (0.001, 0.0003))
        distance = published[method, "bpd"] - limits[method, "bpd"]
        assert f"| {title} | {high:.3f} | {low:.3f} | {low / 3:.3f} | {distance:.3f} |" in rates
    titles |= {"Silent (Bernoulli)": "silent-bernoulli", "Gumbel-Softmax": "gumbel-softmax"}
    for title, method in titles.items():
        bound = f"{measured[method, 'bpd']:.3f}, {published[method, 'bpd']:.3f}"
        kinds = ("mse_sampled_clamped", "mse_sampled", "mse_mean_decoded")
        errors = " | ".join(f"{measured[method, kind]:.3f}" for kind in kinds)
        assert f"| {title} | {bound} | {errors} | {published[method, kinds[0]]:.3f} |" in trained


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
    """Method, metric, kind of number and text of the entries of Tables 3 and 4 in a part of docs/results.md.

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


@pytest.mark.parametrize("name", ["mnist-reduced", "mnist-reduced-protocol-paper", "colour-reduced"])
def test_tables_3_and_4_are_quoted_method_by_method(name: str) -> None:
    tables = (REPOSITORY / "measured" / name / "tables").glob("table-[34]*.csv")
    measured = pd.concat(map(pd.read_csv, tables)).set_index(["dataset", "method", "metric"])
    datasets = measured.index.unique("dataset")
    results = (REPOSITORY / "docs" / "results.md").read_text()
    (section,) = (part for part in results.split("\n## ") if f"`{name}`" in part.splitlines()[0])
    quoted = set()
    for part in section.split("\n### "):
        # A study of several data sets names that of a table in the heading above it.
        dataset = next((each for each in datasets if f"`{each}`" in part.splitlines()[0]), datasets[0])
        for method, metric, kind, text in quoted_cells(part):
            value, digits = measured.loc[(dataset, method, metric), kind], len(text.split(" ")[0].partition(".")[2])
            assert text.split(" ")[0] == f"{value:.{digits}f}", (dataset, method, metric)
            quoted.add((dataset, method, metric, kind))
    assert len(quoted) >= 2 * 8 * len(datasets)


def colour_seeds(dataset: str) -> tuple[pd.DataFrame, str]:
    """The reported runs of a data set of colour-reduced, and what docs/results.md says of that."""
    runs = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "runs.csv", dtype={"rounds": str})
    seeds = runs[(runs["setting.data.name"] == dataset) & runs["rounds"].str.endswith("seeds")]
    section = (REPOSITORY / "docs" / "results.md").read_text().split("## Colour images reduced")[1].split("\n## ")[0]
    (part,) = (part for part in section.split("\n### ") if f"`{dataset}`" in part.splitlines()[0])
    return seeds, " ".join(part.split())


def colour_curves(dataset: str, method: str) -> pd.DataFrame:
    """Bits/dim of the images to select on, by epoch and seed."""
    curves = REPOSITORY / "measured" / "colour-reduced" / "curves" / dataset / "learnable"
    return pd.read_csv(curves / f"{method}.csv", index_col="epoch")[["seed_0", "seed_1", "seed_2"]]


@pytest.mark.parametrize("dataset", ["cifar10", "tiny_imagenet32"])
def test_what_is_said_of_colour_images_follows_from_the_runs(dataset: str) -> None:
    seeds, said = colour_seeds(dataset)
    assert f"{(~seeds['flattened'].astype(bool)).sum()} of the {len(seeds)} curves had not flattened" in said
    assert f"at least {seeds['report_active_units'].min():.0f} of 256 units" in said
    assert f"no more than {100 * seeds['report_saturated_fraction'].max():.0f} % of the probabilities" in said
    deviations = seeds.groupby("cell")["report_bpd"].std()
    assert f"a standard deviation of {deviations.min():.3f} to {deviations.max():.3f} bits/dim" in said
    bounds = seeds.pivot_table(index="seed", columns="setting.method", values="report_bpd")
    for alone, others in {"gaussian": ["reparameterization"], "bernoulli": ["gumbel-softmax", "reinforce"]}.items():
        for other in others:
            assert (bounds[f"silent-{alone}"] < bounds[f"{other}+silent"]).all()
            assert (bounds[f"silent-{alone}"] < bounds[other]).all()
    claims = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "tables" / "claims.csv")
    rows = re.findall(r"\| ([^|]*)(?: \| [^|]*)? \| [^|]* \| (0\.\d{3}) \| (holds|fails|undecided) \|", said)
    quoted = sorted((float(p), verdict) for _, p, verdict in rows)
    claims = claims[claims["dataset"] == dataset]
    assert quoted == sorted(
        (round(p, 3), verdict) for p, verdict in zip(claims["p_holm"], claims["verdict"], strict=True)
    )


def test_what_is_said_of_cifar10_alone_follows_from_the_runs() -> None:
    _, said = colour_seeds("cifar10")
    table = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "tables" / "table-3-bits-per-dimension.csv")
    above = (table["measured"].round(3) - table["published"])[table["dataset"] == "cifar10"]
    assert f"{above.min():.2f} to {above.max():.2f} bits/dim above the published ones" in said
    mixed, silent = (colour_curves("cifar10", method) for method in ("reinforce+silent", "silent-bernoulli"))
    assert mixed.loc[:2].equals(silent.loc[:2])
    for curve, epoch in ((mixed, 2), (mixed, 5), (silent, 5)):
        first, second, third = (f"{bound:.3f}" for bound in curve.loc[epoch].tolist())
        assert f"{first}, {second} and {third}" in said


def test_what_is_said_of_the_stand_in_alone_follows_from_the_runs() -> None:
    seeds, said = colour_seeds("tiny_imagenet32")
    bounds = seeds.pivot_table(index="seed", columns="setting.method", values="report_bpd")
    gains = pd.DataFrame(
        {other: bounds[other] - bounds[f"{other}+silent"] for other in bounds if f"{other}+silent" in bounds}
    )
    assert gains.shape == (3, 3)
    assert (gains > 0).all(axis=None)
    assert f"{gains.mean().min():.2f} to {gains.mean().max():.2f} bits/dim" in said
    mixed, silent = (colour_curves("tiny_imagenet32", method) for method in ("reinforce+silent", "silent-bernoulli"))
    assert mixed.loc[:1].equals(silent.loc[:1])
    for curve in (mixed, silent):
        first, second, third = (f"{gain:.3f}" for gain in (curve.loc[1] - curve.loc[3]).tolist())
        assert f"{first}, {second} and {third}" in said


def test_how_many_orderings_of_colour_images_hold_follows_from_the_tables() -> None:
    claims = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "tables" / "claims.csv")
    count = claims["verdict"].value_counts()
    said = " ".join((REPOSITORY / "docs" / "results.md").read_text().split())
    words = f"{count['holds']} hold, {count['fails']} fails, {count['undecided']} are undecided"
    assert f"Of the {len(claims)} orderings {words}" in said
    assert f"{count['holds']} of {len(claims)} published orderings hold, {count['fails']} fails" in said
    assert (claims["p_holm"] < 0.05).sum() == 4  # "Holm's correction over all of them leaves four"


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
    results = (REPOSITORY / "docs" / "results.md").read_text()
    section = results.split("## What the lost settings are worth: digits\n")[1].split("\n## ")[0]
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


RATES = REPOSITORY / "measured" / "sensitivity-mnist-reduced"


def kept_runs(study: str, method: str) -> dict[str, list[dict[str, Any]]]:
    document: dict[str, dict[str, list[dict[str, Any]]]] = json.loads((RATES / f"{study}.json").read_text())
    return document[f"mnist/fixed/{method}"]


def table_rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a text by their first entry."""
    rows = ([entry.strip() for entry in line.split("|")[1:-1]] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE))
    return {first.strip("`*"): entries for first, *entries in rows}


def test_the_tables_of_lower_rates_follow_from_the_runs() -> None:
    results = (REPOSITORY / "docs" / "results.md").read_text()
    section = results.split("## Lower rates and less noise: MNIST reduced\n")[1].split("\n## ")[0]
    rows = table_rows(section)
    reinforce = kept_runs("reinforce", "reinforce")
    for name, (run, *others) in reinforce.items():
        assert not others
        final = run["selection"]
        on_the_way = [f"{run['bits_per_dim'][epoch]:.3f}" for epoch in ("10", "20", "30")]
        assert on_the_way[-1] == f"{final['bpd']:.3f}"
        rest = [
            f"{final['kl']:.1f}",
            f"{final['mse_sampled_clamped']:.2f}",
            f"{100 * final['saturated_fraction']:.0f} %",
        ]
        assert rows[name][-6:] == on_the_way + rest
    for name, runs in kept_runs("reinforce-seeds", "reinforce").items():
        bounds = [run["selection"]["bpd"] for run in runs]
        assert runs[0] == reinforce[name][0]
        assert f"`{name}`: {bounds[0]:.3f}, {bounds[1]:.3f} and {bounds[2]:.3f}" in section
    for title, method in {"Silent (Gaussian)": "silent-gaussian", "Reparameterization": "reparameterization"}.items():
        kept = kept_runs(method, method)
        names = [name for name in ("as it is", "rates/2", "rates/5") if name in kept]
        distances = [f"{kept[name][0]['selection']['bpd'] - 6.719:.3f}" for name in names]
        assert [entry for entry in rows[title] if entry] == distances
        for name in names:
            on_the_way = kept[name][0]["bits_per_dim"]
            fallen = on_the_way["20"] - on_the_way["30"]
            assert fallen < 0.003 if name != "rates/5" else f"{fallen:.3f}" in section


def test_the_published_pair_beside_the_line_of_bounds_and_errors() -> None:
    finals = [run["selection"] for (run,) in kept_runs("reinforce", "reinforce").values()]
    bounds, errors = [final["bpd"] for final in finals], [final["mse_sampled_clamped"] for final in finals]
    line = stats.linregress(bounds, errors)
    residuals = [abs(error - line.slope * bound - line.intercept) for bound, error in zip(bounds, errors, strict=True)]
    at_the_published = f"{line.slope * 7.208 + line.intercept:.2f}"
    results = " ".join((REPOSITORY / "docs" / "results.md").read_text().split())
    assert f"an error of {at_the_published} at 7.208 bits/dim, with residuals up to {max(residuals):.2f}" in results
    assert f"is at {at_the_published} where" in (REPOSITORY / "docs" / "hidden-settings.md").read_text()


def line_of_decided_bits() -> tuple[float, float, float]:
    """Error, sampled and clamped, against bits/dim where decoders are trained on bits: slope, intercept, residual."""
    runs = pd.read_csv(REPOSITORY / "measured" / "mnist-beyond" / "runs.csv")
    runs = runs[(runs["setting.experiment"] == "fixed") & (runs["setting.posterior"] == "bernoulli")]
    runs = runs[~runs["setting.method"].str.contains("gumbel") & (runs["selection_bpd"] < 8)]
    assert len(runs) == 19
    line = stats.linregress(runs["selection_bpd"], runs["selection_mse_sampled_clamped"])
    residuals = runs["selection_mse_sampled_clamped"] - line.slope * runs["selection_bpd"] - line.intercept
    return line.slope, line.intercept, residuals.abs().max()


def kl_left(bits_per_dim: float, error: float) -> float:
    """KL in nats that a bound leaves with an error of samples: 784 pixels, variance 0.01, 256 levels."""
    constant = 8 + 0.5 * math.log2(2 * math.pi * 0.01)
    return (bits_per_dim - constant) * 784 * math.log(2) - error / (2 * 0.01)


def test_the_tables_of_relaxed_and_rounded_bits_follow_from_the_runs() -> None:
    results = (REPOSITORY / "docs" / "results.md").read_text()
    section = results.split("## Gumbel-Softmax, relaxed and rounded: MNIST reduced\n")[1].split("\n## ")[0]
    hidden = (REPOSITORY / "docs" / "hidden-settings.md").read_text()
    rows, left = table_rows(section), table_rows(hidden.split("## Gumbel-Softmax, relaxed or rounded\n")[1])
    slope, intercept, residual = line_of_decided_bits()
    assert f"the residuals are up to {residual:.2f}" in section
    kept = kept_runs("gumbel-softmax", "gumbel-softmax")
    assert len(kept) == 6
    for name, (run,) in kept.items():
        final = run["selection"]
        bound, error, clamped = final["bpd"], final["mse_sampled"], final["mse_sampled_clamped"]
        assert kl_left(bound, error) == pytest.approx(
            final["kl"], abs=0.5
        )  # the error is an estimate, the bound is not
        clamping = error / clamped
        assert rows[name] == [
            f"{bound:.3f}",
            f"{final['kl']:.1f}",
            f"{clamped:.2f}",
            f"{clamping:.3f}",
            f"{100 * final['saturated_fraction']:.0f} %",
            f"{clamped - slope * bound - intercept:.2f}",
        ]
        if name != "temperature=2":
            title = {
                "as it is": "temperature 1",
                "bits=straight-through": "temperature 1, bits rounded on the way forward",
            }
            entries = left[title.get(name, name.replace("=", " "))]
            assert entries == [f"{clamping:.3f}", f"{final['kl']:.1f}", f"{kl_left(6.990, 7.670 * clamping):.0f}"]
    for bound, error in ((6.900, 6.103), (7.208, 9.289), (6.990, 7.670)):
        assert f"{error - slope * bound - intercept:.2f}" in section
    seeds = kept_runs("gumbel-softmax-seeds", "gumbel-softmax")
    for name, runs in seeds.items():
        assert runs[0] == kept[name][0]
        first, second, third = (f"{run['selection']['bpd']:.3f}" for run in runs)
        assert f"{first}, {second} and {third}" in " ".join(section.split())
    bounds = {name: [run["selection"]["bpd"] for run in runs] for name, runs in seeds.items()}
    costs = paired(bounds["bits=straight-through"], bounds["as it is"]).strip("+* ")
    assert f"**Rounding costs {costs} bits/dim**" in section
    off = [
        run["selection"]["mse_sampled_clamped"] - slope * run["selection"]["bpd"] - intercept
        for run in seeds["bits=straight-through"]
    ]
    assert f"{min(off):.2f} to {max(off):.2f} above the line" in " ".join(section.split())


def test_what_is_said_of_the_cooldown_follows_from_the_runs() -> None:
    study = REPOSITORY / "measured" / "mnist-reduced-cooldown"
    results = (REPOSITORY / "docs" / "results.md").read_text()
    (section,) = (part for part in results.split("\n## ") if "`mnist-reduced-cooldown`" in part.splitlines()[0])
    said, (first, second) = " ".join(section.split()), section.split("### Table 1, reduced")
    rows, variances = table_rows(first), table_rows(second)
    table = pd.read_csv(study / "tables" / "table-2-fixed-variance.csv").set_index(["method", "metric"])
    measured, published, limits = (table[column].to_dict() for column in ("measured", "published", "closed_form"))
    at_epochs = pd.read_csv(study / "tables" / "table-1-gradient-variance.csv").set_index(["method", "epoch"])
    noise = at_epochs["batch_mean"].to_dict()
    bounds, worst = {}, {}
    for title, method in {"Silent (Gaussian)": "silent-gaussian", "Reparameterization": "reparameterization"}.items():
        cell = f"mnist/fixed/{method}"
        error = (method, "mse_sampled_clamped")
        bounds[method] = reported(study, cell, "bpd")
        above = bounds[method] - limits[method, "bpd"]
        worst[method] = above.max()
        assert rows[title][0].split(" ")[0] == f"{measured[method, 'bpd']:.4f}"
        assert rows[title][1:] == [
            f"{published[method, 'bpd']:.3f}",
            f"{above.mean():.4f}",
            f"{published[method, 'bpd'] - limits[method, 'bpd']:.4f}",
            f"{measured[method, 'kl']:.2f}",
            f"{measured[error]:.3f}",
            f"{published[error]:.3f}",
        ]
    silent = "silent-gaussian"
    assert bounds[silent].max() <= 6.718
    assert worst[silent] <= 0.005
    assert f"at most {bounds[silent].max():.4f} bits/dim, {worst[silent]:.4f} above the limit" in said
    for title, method in {"Silent": silent, "Reparameterization": "reparameterization"}.items():
        epochs = reported(study, f"mnist/fixed/{method}", "epochs_to_threshold").astype(int).tolist()
        assert "{}, {} and {}".format(*epochs) in said
        found = [noise[method, epoch] for epoch in (10, 30)]
        assert variances[title] == [f"{float(f'{value:.3g}'):,.0f}" for value in found]
    curves = {
        method: pd.read_csv(study / "curves" / "mnist" / "fixed" / f"{method}.csv", index_col="epoch")["selection_bpd"]
        for method in bounds
    }
    assert f"({curves[silent][2]:.4f}, mean of three seeds)" in said
    assert f"is at {curves['reparameterization'][10]:.3f} by epoch 10" in said
