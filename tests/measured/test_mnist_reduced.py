"""What the docs say of MNIST reduced, beside its tables, follows from the runs kept."""

import pandas as pd
import pytest
from scipy import stats
from studies.sensitivity import paired
from tests.measured.kept import (
    FIXED,
    REPOSITORY,
    hidden_settings_on,
    in_one_line,
    kl_left,
    line_of_decided_bits,
    off_the_line,
    reported,
    results_on,
    rounded,
    sensitivity,
    table,
    table_rows,
)


def test_the_tables_of_lower_rates_follow_from_the_runs() -> None:
    section = results_on("Lower rates and less noise: MNIST reduced")
    rows = table_rows(section)
    reinforce = sensitivity("reinforce", "fixed/reinforce")
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
    for name, runs in sensitivity("reinforce-seeds", "fixed/reinforce").items():
        bounds = [run["selection"]["bpd"] for run in runs]
        assert runs[0] == reinforce[name][0]
        assert f"`{name}`: {bounds[0]:.3f}, {bounds[1]:.3f} and {bounds[2]:.3f}" in section
    for title, method in {"Silent (Gaussian)": "silent-gaussian", "Reparameterization": "reparameterization"}.items():
        kept = sensitivity(method, f"fixed/{method}")
        names = [name for name in ("as it is", "rates/2", "rates/5") if name in kept]
        distances = [f"{kept[name][0]['selection']['bpd'] - 6.719:.3f}" for name in names]
        assert [entry for entry in rows[title] if entry] == distances
        for name in names:
            on_the_way = kept[name][0]["bits_per_dim"]
            fallen = on_the_way["20"] - on_the_way["30"]
            assert fallen < 0.003 if name != "rates/5" else f"{fallen:.3f}" in section


def test_the_published_pair_beside_the_line_of_bounds_and_errors() -> None:
    finals = [run["selection"] for (run,) in sensitivity("reinforce", "fixed/reinforce").values()]
    bounds, errors = [final["bpd"] for final in finals], [final["mse_sampled_clamped"] for final in finals]
    line = stats.linregress(bounds, errors)
    residuals = [abs(error - line.slope * bound - line.intercept) for bound, error in zip(bounds, errors, strict=True)]
    at_the_published = f"{line.slope * 7.208 + line.intercept:.2f}"
    said = in_one_line(results_on("Lower rates and less noise: MNIST reduced"))
    assert f"an error of {at_the_published} at 7.208 bits/dim, with residuals up to {max(residuals):.2f}" in said
    assert f"is at {at_the_published} where" in in_one_line(hidden_settings_on("REINFORCE's rate and its noise"))


def test_the_tables_of_relaxed_and_rounded_bits_follow_from_the_runs() -> None:
    section = results_on("Gumbel-Softmax, relaxed and rounded: MNIST reduced")
    rows, left = table_rows(section), table_rows(hidden_settings_on("Gumbel-Softmax, relaxed or rounded"))
    _, _, residual = line_of_decided_bits()
    assert f"the residuals are up to {residual:.2f}" in section
    kept = sensitivity("gumbel-softmax", "fixed/gumbel-softmax")
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
            f"{off_the_line(bound, clamped):.2f}",
        ]
        if name != "temperature=2":
            title = {
                "as it is": "temperature 1",
                "bits=straight-through": "temperature 1, bits rounded on the way forward",
            }
            entries = left[title.get(name, name.replace("=", " "))]
            assert entries == [f"{clamping:.3f}", f"{final['kl']:.1f}", f"{kl_left(6.990, 7.670 * clamping):.0f}"]
    for bound, error in ((6.900, 6.103), (7.208, 9.289), (6.990, 7.670)):
        assert f"{off_the_line(bound, error):.2f}" in section
    seeds = sensitivity("gumbel-softmax-seeds", "fixed/gumbel-softmax")
    for name, runs in seeds.items():
        assert runs[0] == kept[name][0]
        first, second, third = (f"{run['selection']['bpd']:.3f}" for run in runs)
        assert f"{first}, {second} and {third}" in in_one_line(section)
    bounds = {name: [run["selection"]["bpd"] for run in runs] for name, runs in seeds.items()}
    costs = paired(bounds["bits=straight-through"], bounds["as it is"]).strip("+* ")
    assert f"**Rounding costs {costs} bits/dim**" in section
    off = [
        off_the_line(run["selection"]["bpd"], run["selection"]["mse_sampled_clamped"])
        for run in seeds["bits=straight-through"]
    ]
    assert f"{min(off):.2f} to {max(off):.2f} above the line" in in_one_line(section)


def test_what_is_said_of_the_cooldown_follows_from_the_runs() -> None:
    study = REPOSITORY / "measured" / "mnist-reduced-cooldown"
    section = results_on("`mnist-reduced-cooldown`")
    said, (first, second) = in_one_line(section), section.split("### Table 1, reduced")
    rows, variances = table_rows(first), table_rows(second)
    bounds_and_errors = table("mnist-reduced-cooldown", "table-2-fixed-variance")
    measured, published, limits = (
        bounds_and_errors[column].to_dict() for column in ("measured", "published", "closed_form")
    )
    noise = table("mnist-reduced-cooldown", "table-1-gradient-variance")["batch_mean"].to_dict()
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
        assert variances[title] == [rounded(noise[method, epoch]) for epoch in (10, 30)]
    curves = {
        method: pd.read_csv(study / "curves" / "mnist" / "fixed" / f"{method}.csv", index_col="epoch")["selection_bpd"]
        for method in bounds
    }
    assert f"({curves[silent][2]:.4f}, mean of three seeds)" in said
    assert f"is at {curves['reparameterization'][10]:.3f} by epoch 10" in said


def test_what_is_said_of_bits_with_a_cooldown_follows_from_the_runs() -> None:
    study = "mnist-reduced-cooldown-bits"
    section = results_on(f"`{study}`")
    rows, said = table_rows(section), in_one_line(section)
    found = table(study, "table-2-fixed-variance")
    measured, published = found["measured"].to_dict(), found["published"].to_dict()
    off, errors = {}, {}
    for title in ("Silent (Bernoulli)", "Gumbel-Softmax", "Straight-through Gumbel-Softmax"):
        method = FIXED[title]
        bound, errors[method] = measured[method, "bpd"], measured[method, "mse_sampled_clamped"]
        off[method] = off_the_line(bound, errors[method])
        entries = [entry.split(" [")[0] for entry in rows[title]]
        expected = [f"{bound:.3f}", f"{measured[method, 'kl']:.2f}", f"{errors[method]:.3f}"]
        assert [entries[column] for column in (0, 2, 3)] == expected
        if entries[1]:
            known = (published[method, "bpd"], published[method, "mse_sampled_clamped"])
            assert (float(entries[1]), float(entries[4])) == known
    rounded_bits, relaxed = "straight-through-gumbel-softmax", "gumbel-softmax"
    assert f"their errors are {errors[rounded_bits] - errors[relaxed]:.2f} apart" in said
    assert f"are {off[rounded_bits]:.2f} above" in said
    assert f"relaxed ones {-off[relaxed]:.2f} below it" in said
    bounds = reported(REPOSITORY / "measured" / study, "mnist/fixed/silent-bernoulli", "bpd")
    assert bounds.max() <= 6.900
    first, second, third = (f"{bound:.3f}" for bound in bounds)
    assert f"{first}, {second} and {third}" in said


def test_what_is_said_of_longer_trainings_follows_from_the_runs() -> None:
    study = "mnist-reduced-24-epochs"
    section = results_on(f"`{study}`")
    rows, said = table_rows(section), in_one_line(section)
    bounds, nats = (table(study, name) for name in ("table-3-bits-per-dimension", "table-4-kl-divergence"))
    shorter = table("mnist-reduced", "table-3-bits-per-dimension")["measured"].to_dict()
    for title, method in {
        "Reparameterization": "reparameterization",
        "Reparameterization + SG": "reparameterization+silent",
    }.items():
        assert [entry.split(" [")[0] for entry in rows[title]] == [
            f"{bounds['measured'].to_dict()[method, 'bpd']:.3f}",
            f"{bounds['published'].to_dict()[method, 'bpd']:.2f}",
            f"{shorter[method, 'bpd']:.3f}",
            f"{nats['measured'].to_dict()[method, 'kl']:.1f}",
            f"{nats['published'].to_dict()[method, 'kl']:.1f}",
        ]
        curves = REPOSITORY / "measured" / study / "curves" / "mnist" / "learnable" / f"{method}.csv"
        curve = pd.read_csv(curves, index_col="epoch")[["seed_0", "seed_1", "seed_2"]]
        for epoch in (6, 8):
            assert "{:.3f}, {:.3f} and {:.3f}".format(*curve.loc[epoch]) in said
    alone, guided = (
        reported(REPOSITORY / "measured" / study, f"mnist/learnable/{method}", "bpd")
        for method in ("reparameterization", "reparameterization+silent")
    )
    first, second, third = guided - alone
    assert f"{-first:.3f} and {-second:.3f} lower with two seeds and {third:.3f} higher with the third" in said
