"""What the docs say of MNIST with a fixed variance and the paper's networks follows from the runs kept."""

import json
import re
from typing import Any

import pandas as pd
import pytest
from tests.measured.kept import (
    FIXED,
    REPOSITORY,
    hidden_settings_on,
    in_one_line,
    kl_left,
    off_the_line,
    results_on,
    rounded,
    table,
    table_rows,
)

PAPERS = ("Silent (Gaussian)", "Reparameterization", "Silent (Bernoulli)", "Gumbel-Softmax", "REINFORCE")


def curve(method: str) -> pd.Series:
    """Bits/dim of the images to select on, by epoch, of a method's run of 500 epochs."""
    curves = REPOSITORY / "measured" / "mnist-fixed-500-epochs" / "curves" / "mnist" / "fixed"
    return pd.read_csv(curves / f"{method}.csv", index_col="epoch")["selection_bpd"]


def test_the_numbers_of_ninety_epochs_are_those_of_the_tables() -> None:
    measured = table("mnist-fixed", "table-2-fixed-variance")["measured"]
    noise = table("mnist-fixed", "table-1-gradient-variance")["batch_mean"]
    first, second = results_on("`mnist-fixed`").split("### Table 1")
    for title in PAPERS:
        _, bound, _, kl, error, _ = table_rows(first)[title]
        method = FIXED[title]
        assert bound == f"{measured[method, 'bpd']:.3f}"
        assert kl == f"{measured[method, 'kl']:.2f}"
        assert error == f"{measured[method, 'mse_sampled_clamped']:.3f}"
        if "silent" not in method:
            assert table_rows(second)[title] == [rounded(noise[method, epoch]) for epoch in (10, 45, 90)]


def test_what_trained_models_say_of_hidden_settings_follows_from_their_runs() -> None:
    runs = pd.read_csv(REPOSITORY / "measured" / "mnist-fixed" / "runs.csv")
    bounds = runs.set_index(["setting.method", "setting.learning_rate"])["selection_bpd"].to_dict()
    found = table("mnist-fixed", "table-2-fixed-variance")
    measured, published, limits = (found[column].to_dict() for column in ("measured", "published", "closed_form"))
    rates = table_rows(hidden_settings_on("The learning rate"))
    # Of two tables with the same titles, the first is that of these networks.
    trained = table_rows(hidden_settings_on("What trained models add").split("The reduced MNIST")[0])
    for title in ("Silent (Gaussian)", "Reparameterization"):
        method = FIXED[title]
        high, low = (bounds[method, rate] - 6.719 for rate in (0.001, 0.0003))
        distance = published[method, "bpd"] - limits[method, "bpd"]
        assert rates[title] == [f"{value:.3f}" for value in (high, low, low / 3, distance)]
    silent, other = (curve(method)[450] - 6.719 for method in ("silent-gaussian", "reparameterization"))
    said = in_one_line(hidden_settings_on("The learning rate"))
    assert f"{silent:.3f} and {other:.3f} above the limit of these images" in said
    kinds = ("mse_sampled_clamped", "mse_sampled", "mse_mean_decoded")
    for title in ("Silent (Gaussian)", "Reparameterization", "Silent (Bernoulli)", "Gumbel-Softmax"):
        method = FIXED[title]
        bound = f"{measured[method, 'bpd']:.3f}, {published[method, 'bpd']:.3f}"
        errors = [f"{measured[method, kind]:.3f}" for kind in kinds]
        assert trained[title] == [bound, *errors, f"{published[method, kinds[0]]:.3f}"]


def test_the_numbers_of_500_epochs_are_those_of_the_tables_and_snapshots() -> None:
    study = "mnist-fixed-500-epochs"
    runs: dict[str, list[dict[str, Any]]] = json.loads((REPOSITORY / "measured" / study / "snapshots.json").read_text())
    snapshots = {
        (run.split("/")[2], found["epoch"], found["split"]): found for run, all_ in runs.items() for found in all_
    }
    final, noise = table(study, "table-2-fixed-variance"), table(study, "table-1-gradient-variance")["batch_mean"]
    section = results_on(f"`{study}`")
    (bounds, errors), speed, variances = (
        section.split("### Table 2")[1].split("### Figure 2")[0].split("| method | KL"),
        table_rows(section.split("### Figure 2")[1].split("### Table 1")[0]),
        table_rows(section.split("### Table 1")[1]),
    )
    for title in ("Silent (Gaussian)", "Reparameterization"):
        method = FIXED[title]
        constant, fallen = (snapshots[method, epoch, "test"] for epoch in (450, 500))
        for metric in ("bpd", "kl"):
            assert fallen[metric] == pytest.approx(final.loc[(method, metric), "measured"], abs=1e-6)
        limit, published = (float(final[column].to_dict()[method, "bpd"]) for column in ("closed_form", "published"))
        assert table_rows(bounds)[title] == [
            f"{constant['bpd']:.4f}",
            f"{fallen['bpd']:.4f}",
            f"{published:.3f}",
            *(f"{bound - limit:.4f}" for bound in (constant["bpd"], fallen["bpd"], published)),
        ]
        error = "mse_sampled_clamped"
        assert table_rows(errors)[title] == [
            *(f"{found['kl']:.2f}" for found in (constant, fallen)),
            *(f"{found[error]:.3f}" for found in (constant, fallen)),
            f"{final['published'].to_dict()[method, error]:.3f}",
        ]
        expected = [noise[method, epoch] for epoch in (10, 45, 90, 200, 450, 500)]
        assert variances[title] == [rounded(value) for value in expected]
        for epoch in (10, 45, 90, 200, 450, 500):
            found = snapshots[method, epoch, "holdout"]["bpd"]
            assert found == pytest.approx(curve(method)[epoch], abs=1e-5)
    gain, left = (
        snapshots["reparameterization", epoch, "test"]["bpd"] - snapshots["silent-gaussian", epoch, "test"]["bpd"]
        for epoch in (450, 500)
    )
    assert f"{left:.4f} bits/dim are left of {gain:.4f}" in in_one_line(section)
    for epoch in (10, 45, 90, 200, 450, 500):
        found = [
            snapshots[method, epoch, split]["bpd"]
            for split in ("holdout", "test")
            for method in ("silent-gaussian", "reparameterization")
        ]
        assert speed[str(epoch)] == [f"{bound:.4f}" for bound in found]
    epochs = pd.read_csv(REPOSITORY / "measured" / study / "runs.csv").set_index("setting.method")[
        "epochs_to_threshold"
    ]
    silent, other = (epochs[method].item() for method in ("silent-gaussian", "reparameterization"))
    assert f"are {silent:.0f} against {other:.0f} here" in section


def test_the_rows_of_more_bits_are_those_of_the_tables() -> None:
    own, before = (table(name, "table-2-fixed-variance") for name in ("mnist-fixed-bits", "mnist-fixed"))
    noise = table("mnist-fixed-bits", "table-1-gradient-variance")["batch_mean"]
    first, second = results_on("`mnist-fixed-bits`").split("### Gradient variance")
    rows = [line.strip("| ").split("|") for line in re.findall(r"^\| \*?[A-Z].*$", first, re.MULTILINE)]
    assert len(rows) == 5
    for row in rows:
        kept, (title, _, bound, published, kl, error, *rest) = (
            before if "*" in row[0] else own,
            (entry.strip(" *") for entry in row),
        )
        method = FIXED[title]
        measured, printed = (kept[column].to_dict() for column in ("measured", "published"))
        assert bound == f"{measured[method, 'bpd']:.3f}"
        assert kl == f"{measured[method, 'kl']:.2f}"
        assert error == f"{measured[method, 'mse_sampled_clamped']:.3f}"
        if published:
            assert (float(published), *map(float, rest)) == (
                printed[method, "bpd"],
                printed[method, "mse_sampled_clamped"],
            )
        if kept is own:
            assert table_rows(second)[title] == [rounded(noise[method, epoch]) for epoch in (10, 45, 90)]


def test_rounded_bits_with_the_papers_networks_are_off_the_line_as_the_published_ones() -> None:
    rows = {
        name: table(study, "table-2-fixed-variance").loc[method]["measured"]
        for study, method, name in (
            ("mnist-fixed-bits", "straight-through-gumbel-softmax", "rounded"),
            ("mnist-fixed", "gumbel-softmax", "relaxed"),
        )
    }
    off = {name: off_the_line(row["bpd"], row["mse_sampled_clamped"]) for name, row in rows.items()}
    said = in_one_line(hidden_settings_on("Gumbel-Softmax, relaxed or rounded"))
    assert f"are {off['rounded']:.2f} above the line and relaxed ones {-off['relaxed']:.2f} below it" in said
    clamping = rows["rounded"]["mse_sampled"] / rows["rounded"]["mse_sampled_clamped"]
    left = kl_left(6.990, 7.670 * clamping)
    assert f"clamping is {clamping:.3f}, which leaves the published pair a KL of {left:.0f}" in said
    assert f"where the rounded run has {rows['rounded']['kl']:.1f}" in said
    results = in_one_line(results_on("`mnist-fixed-bits`"))
    published = off_the_line(6.990, 7.670)
    assert f"has {off['rounded']:.2f} more error than" in results
    assert f"the published one {published:.2f}, relaxed bits {-off['relaxed']:.2f} less" in results
