"""What docs/results/ says of colour images follows from the runs kept."""

import re

import pandas as pd
import pytest
from scipy import stats
from tests.measured.kept import FIXED, REPOSITORY, in_one_line, reported, results, results_on, table_rows

ESTIMATORS = ("reparameterization", "gumbel-softmax", "reinforce")
TITLES = {name: title for title, name in FIXED.items()} | {
    f"{name}+silent": f"{title} + SG" for title, name in FIXED.items()
}
TITLES["silent-bernoulli"] = "Silent (discrete)"


def colour_seeds(dataset: str) -> tuple[pd.DataFrame, str]:
    """The reported runs of a data set of colour-reduced, and what docs/results/ says of that."""
    runs = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "runs.csv", dtype={"rounds": str})
    seeds = runs[(runs["setting.data.name"] == dataset) & runs["rounds"].str.endswith("seeds")]
    parts = results_on("`colour-reduced`").split("\n### ")
    (part,) = (part for part in parts if f"`{dataset}`" in part.splitlines()[0])
    return seeds, in_one_line(part)


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
    said = in_one_line(results())
    words = f"{count['holds']} hold, {count['fails']} fails, {count['undecided']} are undecided"
    assert f"Of the {len(claims)} orderings {words}" in said
    assert f"{count['holds']} of {len(claims)} published orderings hold, {count['fails']} fails" in said
    assert (claims["p_holm"] < 0.05).sum() == 4  # "Holm's correction over all of them leaves four"


@pytest.mark.parametrize(
    ("study", "changed", "standing"), [("colour-reduced-protocol-paper", 4, 6), ("colour-reduced-cooldown", 2, 10)]
)
def test_orderings_beside_those_of_the_preset_follow_from_the_tables(study: str, changed: int, standing: int) -> None:
    said = results_on(f"`{study}`")
    tables = [REPOSITORY / "measured" / name / "tables" for name in (study, "colour-reduced")]
    key = ["dataset", "first", "second", "metric"]
    claims, before = (pd.read_csv(folder / "claims.csv") for folder in tables)
    both = claims.merge(before, on=key, suffixes=("", "_preset"), validate="1:1")
    hold, fail, open_ = (int((claims["verdict"] == verdict).sum()) for verdict in ("holds", "fails", "undecided"))
    stand = claims[(claims["verdict"] == "holds") & (claims["p_holm"] < 0.05)]
    assert f"**Of the 14 orderings {hold} hold, {fail} fails, {open_} are undecided**" in said
    assert (both["verdict"] != both["verdict_preset"]).sum() == changed
    assert len(stand) == standing
    assert f"{standing} of the {hold} stand after Holm's correction" in said
    for dataset in ("cifar10", "tiny_imagenet32"):
        (part,) = (part for part in said.split("\n### ") if f"`{dataset}`" in part.splitlines()[0])
        rows = table_rows(part)
        of_dataset = both[both["dataset"] == dataset]
        assert len(of_dataset) == 7
        for _, claim in of_dataset.iterrows():
            digits, metric = (3, "bits/dim") if claim["metric"] == "bpd" else (1, "KL")
            side = "below" if claim["expected"] == "lower" else "above"
            assert rows[f"{TITLES[claim['first']]} {side} {TITLES[claim['second']]}, {metric}"] == [
                f"{claim['difference']:.{digits}f} [{claim['low']:.{digits}f}, {claim['high']:.{digits}f}]",
                f"{claim['difference_preset']:.{digits}f}",
                *("<0.001" if p < 0.0005 else f"{p:.3f}" for p in (claim["p"], claim["p_holm"])),
                claim["verdict"],
                claim["verdict_preset"],
            ]


def bounds_of(study: str) -> "pd.Series[float]":
    """Bits/dim of a study of colour images by data set and method."""
    rows = pd.read_csv(REPOSITORY / "measured" / study / "tables" / "table-3-bits-per-dimension.csv")
    return rows.set_index(["dataset", "method"])["measured"]


def test_what_the_papers_protocol_moves_follows_from_the_tables() -> None:
    said = in_one_line(results_on("`colour-reduced-protocol-paper`"))
    moved = (bounds_of("colour-reduced-protocol-paper") - bounds_of("colour-reduced")).sort_values()
    assert moved.index[0] == ("cifar10", "gumbel-softmax+silent")
    assert moved.index[-1] == ("tiny_imagenet32", "gumbel-softmax+silent")
    assert moved.iloc[-1] > 0 > moved.iloc[-2]
    assert f"by {-moved.iloc[-2]:.3f} to {-moved.iloc[1]:.3f} but for one" in said
    # "the smallest p of the 16 rows"
    runs = {
        study: [
            reported(REPOSITORY / "measured" / study, f"{dataset}/learnable/{method}", "bpd")
            for dataset, method in moved.index
        ]
        for study in ("colour-reduced-protocol-paper", "colour-reduced")
    }
    p_values = [stats.ttest_ind(*pair, equal_var=False).pvalue for pair in zip(*runs.values(), strict=True)]
    assert len(p_values) == 16
    assert min(p_values) == p_values[0]
    assert f"moves furthest, by {-moved.iloc[0]:.3f}; its p by Welch's test, {p_values[0]:.3f}" in said


def test_what_a_cooldown_is_worth_follows_from_the_tables() -> None:
    said = in_one_line(results_on("`colour-reduced-cooldown`"))
    bounds = bounds_of("colour-reduced-cooldown")
    moved = bounds - bounds_of("colour-reduced")
    gains = [
        [f"{bounds[dataset, name] - bounds[dataset, f'{name}+silent']:.3f}" for name in ESTIMATORS]
        for dataset in ("cifar10", "tiny_imagenet32")
    ]
    for first, second, third in gains:
        assert f"{first}, {second} and {third}" in said
    guided = [f"{-moved[dataset, 'reinforce+silent']:.3f}" for dataset in ("cifar10", "tiny_imagenet32")]
    assert f"guided REINFORCE is lowered most by a quiet end, by {guided[0]} and {guided[1]}" in said
    assert set(moved.groupby("dataset").idxmin()) == {
        ("cifar10", "reinforce+silent"),
        ("tiny_imagenet32", "reinforce+silent"),
    }
    unguided = moved["cifar10", "gumbel-softmax"]
    assert f"{unguided:.3f} of the 0.086 is that the unguided one ends higher" in said
    falls_less = [
        (dataset, name)
        for dataset in ("cifar10", "tiny_imagenet32")
        for name, alone in zip(ESTIMATORS, ("gaussian", "bernoulli", "bernoulli"), strict=True)
        if moved[dataset, f"{name}+silent"] > moved[dataset, f"silent-{alone}"]
    ]
    assert falls_less == [("tiny_imagenet32", "gumbel-softmax")]  # "all but one"


@pytest.mark.parametrize("study", ["colour-reduced-protocol-paper", "colour-reduced-cooldown"])
def test_every_pair_gains_and_silent_gradients_alone_are_ahead(study: str) -> None:
    folder = REPOSITORY / "measured" / study
    for dataset in ("cifar10", "tiny_imagenet32"):
        for name, alone in zip(ESTIMATORS, ("gaussian", "bernoulli", "bernoulli"), strict=True):
            unguided, guided, silent = (
                reported(folder, f"{dataset}/learnable/{method}", "bpd")
                for method in (name, f"{name}+silent", f"silent-{alone}")
            )
            assert (guided < unguided).all()
            assert (silent < guided).all()
            assert len(guided) == 3
