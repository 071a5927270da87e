"""What docs/results/ says of changed settings on the digits follows from the runs kept."""

import json
import re

import pandas as pd
from scipy import stats
from tests.measured.kept import REPOSITORY, in_one_line, results_on, table

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
    for lines_of, experiment, guide in zip(
        tables, ("fixed", "learnable", "learnable"), ("", "", "+silent"), strict=True
    ):
        header, _, *lines = ([entry.strip() for entry in line.split("|")[1:-1]] for line in lines_of.splitlines())
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


def reported_runs(study: str) -> pd.DataFrame:
    runs = pd.read_csv(REPOSITORY / "measured" / study / "runs.csv", dtype={"rounds": str})
    return runs[runs["rounds"].str.endswith("seeds")]


def by_seed(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric of the runs with a learnable variance: seeds by methods."""
    learnable = runs[runs["setting.experiment"] == "learnable"]
    return learnable.pivot_table(index="seed", columns="setting.method", values=f"report_{metric}")


def test_what_is_said_of_ten_seeds_follows_from_the_runs() -> None:
    runs, said = reported_runs("digits-ten-seeds"), in_one_line(results_on("`digits-ten-seeds`"))
    claims = pd.read_csv(REPOSITORY / "measured" / "digits-ten-seeds" / "tables" / "claims.csv")
    assert len(claims) == 14
    assert (claims["verdict"] == "holds").all()
    assert (claims["p_holm"] < 0.05).all()
    # Of ten pairs of both numbers the table of the section has "<0.001" or three digits.
    quoted = re.findall(r"\] \| (<?0\.\d{3}) \| (<?0\.\d{3}) \|", said)
    told = [
        tuple("<0.001" if p < 0.0005 else f"{p:.3f}" for p in pair)
        for pair in claims[["p", "p_holm"]].itertuples(index=False)
    ]
    assert sorted(quoted) == sorted(told)
    bounds, nats = by_seed(runs, "bpd"), by_seed(runs, "kl")
    alone, guided = "reparameterization", "reparameterization+silent"
    starved = nats[alone] < 5
    assert (starved.sum(), (nats[guided] < 5).sum(), f"{nats[alone].min():.2f}") == (6, 1, "0.02")
    gains = bounds[alone] - bounds[guided]
    assert f"gain {gains[starved].min():.3f} to {gains[starved].max():.3f} bits/dim" in said
    assert f"between {gains[~starved].max():.3f} and, one, a loss of {-gains[~starved].min():.3f}" in said
    assert f"a standard deviation of {bounds[alone].std():.3f}" in said
    means = bounds.mean()
    assert f"{means[guided] - means['silent-gaussian']:.3f} below the mixture" in said
    mixed = min(means["gumbel-softmax+silent"], means["reinforce+silent"])
    assert f"{mixed - means['silent-bernoulli']:.3f} below the better one" in said
    others = runs[(runs["setting.experiment"] == "learnable") & (runs["setting.method"] != "reinforce")]
    assert f"of the {len(others)} runs" in said
    assert f"{(~others['flattened'].astype(bool)).sum()} had not flattened" in said
    collapsed = runs[(runs["cell"] == "digits/fixed/reinforce") & (runs["report_active_units"] == 0)]
    (bound,), (kl,) = collapsed["report_bpd"], collapsed["report_kl"]
    assert f"({bound:.3f} bits/dim, {kl:.2f} nats)" in said


def test_what_is_said_of_a_cooldown_follows_from_the_runs() -> None:
    said = in_one_line(results_on("`digits-cooldown`"))
    claims = pd.read_csv(REPOSITORY / "measured" / "digits-cooldown" / "tables" / "claims.csv")
    assert len(claims) == 14
    assert (claims["verdict"] == "holds").all()
    assert f"the largest adjusted p is {claims['p_holm'].max():.3f}" in said
    constant, fallen = (reported_runs(study) for study in ("digits-ten-seeds", "digits-cooldown"))
    means = by_seed(fallen, "bpd").mean()
    continuous = ["silent-gaussian", "reparameterization", "reparameterization+silent"]
    assert means[continuous].idxmin() == "reparameterization+silent"
    assert means.drop(continuous).idxmin() == "reinforce+silent"
    moved = means - by_seed(constant, "bpd").mean()
    assert f"{-moved['reparameterization+silent']:.3f} and {-moved['reinforce+silent']:.3f} lower" in said
    assert f'"None" {-moved["silent-gaussian"]:.3f} and {-moved["silent-bernoulli"]:.3f}' in said
    assert f"alone ends {moved['reparameterization']:.3f} higher, Gumbel-Softmax {moved['gumbel-softmax']:.3f}" in said
    nats = by_seed(fallen, "kl")
    assert ((nats["reparameterization"] < 5).sum(), (nats["reparameterization+silent"] < 5).sum()) == (6, 0)
    fixed = table("digits-cooldown", "table-2-fixed-variance")
    above = (fixed["measured"] - fixed["closed_form"]).to_dict()["silent-gaussian", "bpd"]
    assert f"{above:.3f} above the limit" in said
