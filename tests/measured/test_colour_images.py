"""What docs/results/ says of colour images follows from the runs kept."""

import re

import pandas as pd
import pytest
from tests.measured.kept import REPOSITORY, in_one_line, results, results_on, table, table_rows


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


def test_what_is_said_of_the_papers_protocol_follows_from_the_tables() -> None:
    said = results_on("`colour-reduced-protocol-paper`")
    tables = [REPOSITORY / "measured" / name / "tables" for name in ("colour-reduced-protocol-paper", "colour-reduced")]
    key = ["dataset", "first", "second", "metric"]
    claims, before = (pd.read_csv(folder / "claims.csv") for folder in tables)
    both = claims.merge(before, on=key, suffixes=("", "_holdout"), validate="1:1")
    count, stand = claims["verdict"].value_counts(), claims[(claims["verdict"] == "holds") & (claims["p_holm"] < 0.05)]
    assert (
        f"**Of the 14 orderings {count['holds']} hold, {count['fails']} fails, {count['undecided']} are undecided**"
        in said
    )
    assert (both["verdict"] != both["verdict_holdout"]).sum() == 4
    assert len(stand) == 6
    for dataset in ("cifar10", "tiny_imagenet32"):
        (part,) = (part for part in said.split("\n### ") if f"`{dataset}`" in part.splitlines()[0])
        rows = [
            [entry.strip() for entry in line.split("|")[1:-1]]
            for line in part.splitlines()
            if " below " in line or " above " in line
        ]
        rows = [row for row in rows if len(row) == 7]
        assert len(rows) == 7
        for _, claim in both[both["dataset"] == dataset].iterrows():
            digits = 3 if claim["metric"] == "bpd" else 1
            row = [
                f"{claim['difference']:.{digits}f} [{claim['low']:.{digits}f}, {claim['high']:.{digits}f}]",
                f"{claim['difference_holdout']:.{digits}f}",
                *("<0.001" if p < 0.0005 else f"{p:.3f}" for p in (claim["p"], claim["p_holm"])),
                claim["verdict"],
                claim["verdict_holdout"],
            ]
            assert row in [entries[1:] for entries in rows]
    bounds, bounds_before = (
        pd.read_csv(folder / "table-3-bits-per-dimension.csv").set_index(["dataset", "method"])["measured"]
        for folder in tables
    )
    moved = (bounds - bounds_before).sort_values()
    assert moved.index[0] == ("cifar10", "gumbel-softmax+silent")
    assert moved.index[-1] == ("tiny_imagenet32", "gumbel-softmax+silent")
    assert moved.iloc[-1] > 0 > moved.iloc[-2]
    assert f"by {-moved.iloc[-2]:.3f} to {-moved.iloc[1]:.3f} but for one" in said
    assert f"is lower by {-moved.iloc[0]:.3f}" in said


def test_what_is_said_of_cifar10_with_a_cooldown_follows_from_the_runs() -> None:
    section = results_on("`cifar10-reduced-cooldown`")
    rows, said = table_rows(section), in_one_line(section)
    names = {"table-3-bits-per-dimension": ("bpd", 3, 2), "table-4-kl-divergence": ("kl", 1, 1)}
    for title, method in {
        "None, continuous": "silent-gaussian",
        "Reparameterization": "reparameterization",
        "Reparameterization + SG": "reparameterization+silent",
    }.items():
        expected = []
        for name, (metric, digits, digits_published) in names.items():
            found = table("cifar10-reduced-cooldown", name)
            before = table("colour-reduced", name)
            before = before[before["dataset"] == "cifar10"]
            expected += [
                f"{found['measured'].to_dict()[method, metric]:.{digits}f}",
                f"{before['measured'].to_dict()[method, metric]:.{digits}f}",
                f"{found['published'].to_dict()[method, metric]:.{digits_published}f}",
            ]
        assert [entry.split(" [")[0] for entry in rows[title]] == expected
    claims = pd.read_csv(REPOSITORY / "measured" / "cifar10-reduced-cooldown" / "tables" / "claims.csv")
    assert (claims["verdict"] == "holds").all()
    assert "({:.3f} and {:.3f})".format(*sorted(claims["p_holm"])) in said
    constant = pd.read_csv(REPOSITORY / "measured" / "colour-reduced" / "tables" / "claims.csv")
    pair = ["dataset", "first", "metric"]
    widths = {
        name: (table_["high"] - table_["low"])[("cifar10", "reparameterization+silent", "bpd")]
        for name, table_ in {"fallen": claims.set_index(pair), "constant": constant.set_index(pair)}.items()
    }
    assert 1.5 < widths["constant"] / widths["fallen"] < 2.5  # "twice as wide"
