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
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from docs import tables

FIGURES = tables.ROOT / "docs" / "figures"
GREY, BLUE, RED = "#808080", "#1f6fb4", "#c8322f"
COLOURS = {"undecided": GREY, "one seed": GREY, "contradicted": RED, "not comparable": RED}


def _save(figure: Figure, name: str) -> Path:
    path = FIGURES / name
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    plt.close(figure)
    # Matplotlib ends lines with spaces.
    path.write_text("".join(f"{line.rstrip()}\n" for line in path.read_text().splitlines()))
    return path


def _row(axes: Axes, height: float, study: str, claim: Any) -> None:
    """Draw an ordering: the pairs as ticks, the mean with its interval, the published difference as a diamond."""
    comparison = tables.compare_claim(study, claim)
    found, differences = comparison.difference, list(comparison.differences.values())
    verdict = tables.verdict(study, claim).partition(";")[0].partition(":")[0]
    colour = COLOURS.get(verdict, BLUE)
    low, high = axes.get_xlim()
    axes.plot(differences, [height - 0.3] * len(differences), "|", color=colour, alpha=0.6, markersize=5)
    if low <= found.mean <= high:
        axes.plot([found.mean], [height], "o", color=colour, markersize=5)
    else:
        axes.plot([low], [height], "<", color=colour, markersize=6, clip_on=False)
    if not math.isnan(found.low):
        axes.plot([found.low, found.high], [height, height], color=colour)
    if not math.isnan(claim.published_difference):
        axes.plot([claim.published_difference], [height], "D", color="black", fillstyle="none", markersize=6)


def forest(experiment: str, panels: dict[tuple[str, str], float]) -> Path:
    """Draw an experiment's orderings in bits/dim, a panel each and a row per study and data set.

    Args:
        experiment: Experiment.
        panels: By ordered methods, the left limit of the panel's axis.
    """
    found = {
        (study, claim.dataset, claim.first, claim.second): claim
        for study in tables.STUDIES
        if "beyond" not in study
        for claim in tables.claims(study)
        if (claim.experiment, claim.metric) == (experiment, "bpd") and claim.pairs
    }
    rows = list(dict.fromkeys((study, dataset) for study, dataset, *_ in found))
    sns.set_theme(style="whitegrid", context="paper")
    figure, every = plt.subplots(1, len(panels), sharey=True, figsize=(3.1 * len(panels), 0.3 * len(rows) + 0.9))
    for axes, ((first, second), left) in zip(every, panels.items(), strict=True):
        axes.set_xlim(left, -0.4 * left)
        axes.axvline(0.0, color="black", linewidth=0.8)
        names = [tables.label(f"mnist/{experiment}/{name}") for name in (first, second)]
        axes.set_title(f"{names[0]}\nminus {names[1]}", fontsize=8)
        for height, (study, dataset) in enumerate(rows):
            if claim := found.get((study, dataset, first, second)):
                _row(axes, height, study, claim)
        axes.grid(axis="y", alpha=0.4)
    every[0].set_yticks(range(len(rows)), [f"{tables.SETS[dataset]}: {study}" for study, dataset in rows])
    every[0].invert_yaxis()
    return _save(figure, f"forest-{experiment}.svg")


def remedies(study: str, *names: str, near: float = 5.0) -> Path:
    """Draw the bits/dim of every run of some cells by change, a panel per cell; runs near the prior are red."""
    sns.set_theme(style="whitegrid", context="paper")
    every = [tables.arms(study, name) for name in names]
    sizes = [len(found) for found in every]
    figure, rows = plt.subplots(
        len(names), 1, squeeze=False, height_ratios=sizes, figsize=(6.5, 0.3 * sum(sizes) + 0.5 * len(names))
    )
    colours = {f"KL under {near:g} nats": RED, "others": BLUE}
    for axes, name, found in zip(rows[:, 0], names, every, strict=True):
        runs = pd.concat(found, names=["change"]).reset_index("change")
        runs["run"] = np.where(runs["kl"] < near, *colours)
        # Jitter would be drawn anew in every call.
        sns.stripplot(runs, x="bpd", y="change", hue="run", palette=colours, jitter=False, alpha=0.6, ax=axes)
        axes.set(xlabel="", ylabel="", title=tables.label(name))
        axes.legend().remove()
    rows[-1, 0].set_xlabel("bits/dim")
    figure.tight_layout()
    marks = [Line2D([], [], marker="o", linestyle="", color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 0.9), fontsize=7)
    return _save(figure, f"{study}.svg")


def draw() -> Iterable[Path]:
    """Draw every picture; return the files."""
    yield forest(
        "fixed",
        {
            ("silent-gaussian", "reparameterization"): -0.06,
            ("silent-bernoulli", "gumbel-softmax"): -0.3,
            ("silent-bernoulli", "reinforce"): -1.5,
        },
    )
    yield forest(
        "learnable",
        {
            ("reparameterization+silent", "reparameterization"): -0.8,
            ("gumbel-softmax+silent", "gumbel-softmax"): -0.8,
            ("reinforce+silent", "reinforce"): -0.8,
            ("silent-bernoulli", "reinforce"): -0.8,
        },
    )
    yield remedies("digits-baselines", "digits/learnable/reparameterization", "digits/learnable/gumbel-softmax")


if __name__ == "__main__":
    for path in draw():
        print(path.relative_to(tables.ROOT))
