"""Draw the pictures of docs/results.md and docs/results/ from ``measured/`` into docs/figures/.

    python -m docs.pictures

``make tables`` calls it after the tables are written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from docs import tables
from silent_study.report.claims import VERDICTS
from silent_study.report.drawings import WIDTHS
from silent_study.report.forest import BLUE, RED, row

FIGURES = tables.ROOT / "docs" / "figures"
WIDTH = WIDTHS[""]


def _theme() -> None:
    """Set letters of 7 points or more in a picture of the page's width."""
    sns.set_theme(style="whitegrid", context="paper", font_scale=0.8)


def _save(figure: Figure, name: str) -> Path:
    path = FIGURES / name
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)
    # Matplotlib ends lines with spaces.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


PANELS: dict[tuple[str, str, str], float] = {
    ("fixed", "silent-gaussian", "reparameterization"): -0.06,
    ("fixed", "silent-bernoulli", "gumbel-softmax"): -0.3,
    ("fixed", "silent-bernoulli", "reinforce"): -1.5,
    ("learnable", "reparameterization+silent", "reparameterization"): -0.8,
    ("learnable", "gumbel-softmax+silent", "gumbel-softmax"): -0.8,
    ("learnable", "reinforce+silent", "reinforce"): -0.8,
    ("learnable", "silent-bernoulli", "reinforce"): -0.8,
}
"""The paper's orderings in bits/dim, experiment and the two methods, with the left limit of their axes."""


def forest(name: str, *experiments: str, studies: str = "") -> Path:
    """Draw orderings in bits/dim, a panel each and a row per study and data set.

    Args:
        name: Of the picture.
        experiments: Experiments of the orderings.
        studies: Beginning of the names of the studies.
    """
    found = {
        (study, claim.dataset, claim.experiment, claim.first, claim.second): claim
        for study in tables.STUDIES
        if "beyond" not in study and study.startswith(studies)
        for claim in tables.claims(study)
        if claim.experiment in experiments and claim.metric == "bpd" and claim.pairs
    }
    rows = list(dict.fromkeys((study, dataset) for study, dataset, *_ in found))
    panels = [panel for panel in PANELS if any(key[2:] == panel for key in found)]
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    _theme()
    figure, every = plt.subplots(
        lines, columns, sharey=True, squeeze=False, figsize=(WIDTH, lines * (0.22 * len(rows) + 0.7))
    )
    for axes, panel in zip(every.flat, panels, strict=False):
        experiment, first, second = panel
        axes.set_xlim(PANELS[panel], -0.4 * PANELS[panel])
        axes.axvline(0.0, color="black", linewidth=0.8)
        names = [tables.label(f"mnist/{experiment}/{name}") for name in (first, second)]
        axes.set_title(f"{names[0]}\nminus {names[1]}", fontsize=6)
        axes.locator_params(axis="x", nbins=3, steps=[1, 5, 10])
        for height, (study, dataset) in enumerate(rows):
            if claim := found.get((study, dataset, *panel)):
                verdict = tables.verdict(study, claim).partition(";")[0].partition(":")[0]
                row(axes, height, tables.compare_claim(study, claim), VERDICTS.get(verdict, "open"))
        axes.grid(axis="y", alpha=0.4)
    for axes in every.flat[len(panels) :]:
        axes.axis("off")
    every[0, 0].set_yticks(range(len(rows)), [f"{tables.SETS[dataset]}: {study}" for study, dataset in rows])
    every[0, 0].invert_yaxis()
    figure.tight_layout()
    return _save(figure, f"forest-{name}.svg")


def summary() -> Path:
    """Draw the rows of ``tables.SUMMARY``, within 0.1 bits/dim on a linear axis and on a logarithmic one beyond."""
    _theme()
    # Narrow, so that its letters can be read on a phone.
    figure, axes = plt.subplots(figsize=(4.4, 4.2))
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set_xlim(-1.0, 0.5)
    axes.axvline(0.0, color="black", linewidth=0.8)
    above: Any = {"size": 7, "va": "center", "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    for height, place in enumerate(tables.SUMMARY):
        claim, compared, _ = tables.summarized(place)
        row(axes, height, compared, VERDICTS.get(tables.verdict(place[0], claim), "open"))
        name = f"{tables.ordering(place[0], claim, metric=False)}, {tables.SETS[claim.dataset]}"
        axes.text(0.01, height - 0.62, name, transform=axes.get_yaxis_transform(), **above)
    axes.set_yticks([])
    axes.set_xticks(ticks := [-0.5, -0.1, -0.05, 0, 0.05, 0.1, 0.5], [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(len(tables.SUMMARY) - 0.6, -1)
    axes.set_xlabel("first minus second, bits/dim (diamond = published)")
    figure.tight_layout()
    return _save(figure, "forest-summary.svg")


def remedies(study: str, *names: str) -> Path:
    """Draw the bits/dim of every run of some cells by change, a panel per cell; collapsed runs are red."""
    _theme()
    every = [tables.arms(study, name) for name in names]
    sizes = [len(found) for found in every]
    figure, rows = plt.subplots(
        len(names), 1, squeeze=False, height_ratios=sizes, figsize=(WIDTH - 0.9, 0.22 * sum(sizes) + 0.5 * len(names))
    )
    colours = {"collapsed": RED, "others": BLUE}
    for axes, name, found in zip(rows[:, 0], names, every, strict=True):
        runs = pd.concat(found, names=["change"]).reset_index("change")
        runs["run"] = np.where(tables.lost(runs), *colours)
        # Jitter would be drawn anew in every call.
        sns.stripplot(runs, x="bpd", y="change", hue="run", palette=colours, jitter=False, alpha=0.6, ax=axes)
        axes.locator_params(axis="x", nbins=6)
        axes.set(xlabel="", ylabel="", title=tables.label(name))
        axes.legend().remove()
    rows[-1, 0].set_xlabel("bits/dim")
    figure.tight_layout()
    marks = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 0.9), fontsize=7)
    return _save(figure, f"{study}.svg")


def methods(name: str, *groups: tuple[str, str]) -> Path:
    """Draw the bits/dim of every run by method, a panel per study and group of cells; collapsed runs are crosses."""
    _theme()
    cells = [
        sorted({cell for cell in tables.runs(study)["cell"] if cell.startswith(f"{group}/")}) for study, group in groups
    ]
    sizes = [len(names) for names in cells]
    figure, every = plt.subplots(
        len(groups), 1, squeeze=False, height_ratios=sizes, figsize=(WIDTH, 0.2 * sum(sizes) + 0.7 * len(groups))
    )
    for axes, (study, group), names in zip(every[:, 0], groups, cells, strict=True):
        names.sort(key=lambda cell: tables.values(study, cell, "bpd").mean())
        for height, cell in enumerate(names):
            lost: dict[Any, bool] = {**tables.collapsed(study, cell)}
            for seed, value in tables.values(study, cell, "bpd").items():
                mark, colour = ("X", RED) if lost.get(seed) else ("o", BLUE)
                axes.plot([value], [height], mark, color=colour, alpha=0.6, markersize=4)
        axes.set_yticks(range(len(names)), [tables.label(cell) for cell in names], fontsize=7)
        axes.invert_yaxis()
        axes.set(xlabel="bits/dim", title=f"{study}: {group.split('/')[1]}")
    figure.tight_layout()
    return _save(figure, f"{name}.svg")


def curves(study: str, height: float) -> Path:
    """Draw the bits/dim of a study's methods on the images to select on over training, so far above the lowest."""
    _theme()
    figure, axes = plt.subplots(figsize=(5.5, 3.0))
    least = math.inf
    for name in sorted(set(tables.runs(study)["cell"])):
        curve = tables.curve_of(study, name).dropna(subset="selection_bpd")
        axes.plot(curve["epoch"], curve["selection_bpd"], label=tables.label(name), linewidth=1)
        least = min(least, curve["selection_bpd"].min())
    axes.set(ylim=(least - height / 20, least + height), xlabel="epoch", ylabel="bits/dim", title=study)
    axes.legend()
    return _save(figure, f"{study}.svg")


def ladder(dataset: str) -> Path:
    """Draw the guide's gain in bits/dim by length, a panel per estimator, with the collapsed runs of both arms."""
    _theme()
    studies = {int(tables.runs(study)["setting.epochs"].iloc[0]): study for study in tables.LADDERS[dataset]}
    shortest, longest = min(studies), max(studies)
    measured = set(tables.runs(studies[shortest])["cell"])
    pairs = [[f"{dataset}/learnable/{name}" for name in pair] for pair in tables.PAIRS]
    pairs = [pair for pair in pairs if pair[0] in measured]
    figure, every = plt.subplots(1, len(pairs), sharey=True, squeeze=False, figsize=(WIDTH, 2.5))
    for axes, (guided, unguided) in zip(every[0], pairs, strict=True):
        axes.axhline(0.0, color="black", linewidth=0.8)
        for epochs, study in studies.items():
            found = tables.compare(study, guided, unguided, "bpd")
            gains = [-value for value in found.differences.values()]
            axes.plot([epochs] * len(gains), gains, "_", color=BLUE, alpha=0.6)
            axes.plot([1.08 * epochs], [-found.difference.mean], "o", color=BLUE, markersize=5)
            axes.plot([1.08 * epochs] * 2, [-found.difference.low, -found.difference.high], color=BLUE)
            lost = f"{found.baseline.lost} : {found.method.lost}"
            axes.annotate(lost, (epochs, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        axes.set(xscale="log", xlim=(shortest / 1.5, longest * 1.5), title=tables.label(unguided))
        axes.set_xticks(list(studies), [str(epochs) for epochs in studies])
        axes.minorticks_off()
    every[0, 0].set_ylabel("gain of the guide, bits/dim")
    figure.supxlabel("epochs; collapsed without : with the guide", fontsize=7)
    figure.tight_layout()
    return _save(figure, f"ladder-{dataset}.svg")


def effects(study: str, *names: str) -> Path:
    """Draw norms and cosines of the encoder's three gradients over training: medians and quartiles of guided runs."""
    _theme()
    figure, every = plt.subplots(2, len(names), sharex=True, sharey="row", squeeze=False, figsize=(WIDTH, 4.4))
    for column, name in zip(every.T, names, strict=True):
        found = tables.effects(study, "gradients", name)
        found = found[found["method"] == tables.GUIDED[name.split("/")[2]]]
        for axes, kind in zip(column, ("norm", "cosine"), strict=True):
            rows = found.melt(
                "epoch", [each for each in found.columns.astype(str) if each.startswith(kind)], "of", kind
            )
            rows["of"] = rows["of"].str.removeprefix(f"{kind} ").str.replace(" ", " and ").str.replace("kl", "KL")
            estimator = {"estimator": "median", "errorbar": ("pi", 50)}
            sns.lineplot(rows, x="epoch", y=kind, hue="of", style="of", markers=True, ax=axes, **estimator)
            axes.legend(title=None, fontsize=7)
        column[0].set(xscale="log", yscale="log", title=tables.label(f"{name}+silent"))
        epochs = sorted(set(found["epoch"]))
        column[1].axhline(0.0, color="black", linewidth=0.8)
        column[1].set_xticks(epochs, [str(epoch) for epoch in epochs])
        column[1].minorticks_off()
    for row_ in every[:, 1:]:
        for axes in row_:
            axes.legend().remove()
    figure.tight_layout()
    return _save(figure, f"{study}-gradients.svg")


def draw() -> Iterable[Path]:
    """Draw every picture; return the files."""
    yield summary()
    for experiment in ("fixed", "learnable"):
        yield forest(experiment, experiment)
    yield forest("digits", "fixed", "learnable", studies="digits")
    yield forest("mnist-reduced", "fixed", "learnable", studies="mnist-reduced")
    yield forest("colour", "learnable", studies="colour")
    yield curves("mnist-fixed-500-epochs", 0.08)
    yield remedies("digits-baselines", "digits/learnable/reparameterization", "digits/learnable/gumbel-softmax")
    guides = [f"digits/learnable/{name}{end}" for name in tables.GUIDED for end in ("+silent", "")]
    yield remedies("digits-guide", *guides)
    yield effects("digits-guide", *(f"digits/learnable/{name}" for name in ("reparameterization", "gumbel-softmax")))
    fixed = [f"mnist/fixed/{name}" for name in ("silent-gaussian", "reparameterization", "gumbel-softmax", "reinforce")]
    yield remedies("sensitivity-mnist-reduced", *fixed)
    groups = (
        ("digits-beyond", "digits/fixed"),
        ("mnist-beyond", "mnist/fixed"),
        ("digits-beyond", "digits/log-linear"),
    )
    yield methods("beyond", *groups)
    yield methods("two-layer", ("digits-exact", "digits/two-layer"))
    yield ladder("digits")


if __name__ == "__main__":
    for path in draw():
        print(path.relative_to(tables.ROOT))
