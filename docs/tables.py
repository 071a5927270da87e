"""Tables of the documents: those of docs/results/ from the studies in ``measured/``, others from code and tests.

``make tables`` writes them into the pages with cog, after an HTML comment that calls a function of this module.
``make lint`` fails where a page differs from what they print. ``measured/<study>/tables/`` has every number in full.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.filesize import decimal

from silent_study.data.sources import SOURCES
from silent_study.methods import METHODS, Method
from silent_study.paper import PUBLISHED, THRESHOLD_BPD
from silent_study.params import resolve
from silent_study.plan.plan import Plan
from silent_study.report.cells import has_collapsed, length, unequal
from silent_study.report.claims import EPOCHS, FAMILIES, OURS, Arm, Comparison, adjusted_by_family
from silent_study.report.grids import edges_of
from silent_study.report.statistics import Summary, summarize
from silent_study.settings import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "measured"
SOURCE = ROOT / "src"
METRICS = {"bpd": "bits/dim", "kl": "KL", "mse_sampled_clamped": "squared error", "epochs_to_threshold": "epochs"}
SETS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "tiny_imagenet32": "Tiny ImageNet", "digits": "digits"}

STUDIES = {
    "mnist-fixed-500-epochs": "mnist.md",
    "mnist-fixed": "mnist.md",
    "mnist-fixed-bits": "mnist.md",
    "mnist-reduced": "mnist-reduced.md",
    "mnist-reduced-protocol-paper": "mnist-reduced.md",
    "mnist-reduced-cooldown": "mnist-reduced.md",
    "mnist-reduced-cooldown-bits": "mnist-reduced.md",
    "mnist-sequential": "mnist-reduced.md",
    "colour-reduced": "colour.md",
    "colour-reduced-protocol-paper": "colour.md",
    "colour-reduced-cooldown": "colour.md",
    "digits": "digits.md",
    "digits-ten-seeds": "digits.md",
    "digits-ladder-40": "ladder.md",
    "digits-ladder-160": "ladder.md",
    "digits-ladder-640": "ladder.md",
    "mnist-beyond": "beyond.md",
    "digits-beyond": "beyond.md",
    "digits-exact": "../beyond-the-paper.md",
    "digits-equal-time": "../beyond-the-paper.md",
    "digits-pixel-variances": "../beyond-the-paper.md",
    "mnist-two-layer": "../beyond-the-paper.md",
    "mnist-equal-time": "../beyond-the-paper.md",
    "mnist-pixel-variances": "../beyond-the-paper.md",
}
"""The page of docs/results/ that describes a study."""


@cache
def runs(study: str) -> pd.DataFrame:
    """Return the runs that a study's cells are reported from, one row per cell and seed."""
    every = pd.read_csv(MEASURED / study / "runs.csv", dtype={"rounds": str})
    return every[every["rounds"].str.split("+").map(lambda rounds: "seeds" in rounds)].copy()


@cache
def claims(study: str) -> list[Any]:
    """Return the orderings of a study, one object with the columns of its table each."""
    path = MEASURED / study / "tables" / "claims.csv"
    return list(pd.read_csv(path).itertuples()) if path.exists() else []


@cache
def rows(study: str) -> pd.DataFrame:
    """Return the rows of Tables 2 to 4 and of the tables of our own experiments of a study."""
    tables = sorted((MEASURED / study / "tables").glob("*.csv"))
    kept = [
        table
        for table in tables
        if table.stem.startswith(("table-2", "table-3", "table-4", "log-linear-prec", "two-layer-dec"))
    ]
    return pd.concat([pd.read_csv(table) for table in kept]).set_index(["dataset", "experiment", "method", "metric"])


@cache
def cell(study: str, name: str) -> pd.DataFrame:
    """Return the runs of a cell (``dataset/experiment/method``) by seed."""
    every = runs(study)
    return every[every["cell"] == name].set_index("seed").sort_index()


def values(study: str, name: str, metric: str) -> pd.Series:
    """Return a metric of a cell's evaluated runs by seed."""
    return cell(study, name)["epochs_to_threshold" if metric == "epochs_to_threshold" else f"report_{metric}"].dropna()


def collapsed(study: str, name: str) -> dict[int, bool]:
    """Return whether each evaluated run of a cell has collapsed, by seed."""
    kept = cell(study, name).filter(["report_active_units", "report_kl"]).rename(columns=lambda name: name[7:])
    kept = kept.dropna(how="all")
    rows: list[dict[str, Any]] = kept.to_dict("records")  # type: ignore[assignment]
    return {seed: has_collapsed(row) for seed, row in zip(kept.index, rows, strict=True)}


def _method(experiment: str, name: str) -> Method:
    experiments: Any = METHODS
    return experiments[experiment][name]


def label(name: str) -> str:
    """Return the title of a cell's method."""
    _, experiment, method = name.split("/")
    title = _method(experiment, method).label
    if experiment == "learnable" and method.startswith("silent-"):
        return title.replace("Silent", "Silent alone")
    return title


def number(value: float, metric: str, sign: bool = False) -> str:
    """Return a number with the digits of its metric; small differences in bits/dim have four."""
    digits = {"bpd": 4 if abs(value) < 0.01 else 3, "mse_sampled_clamped": 3, "kl": 1}.get(metric, 1)
    return f"{value:{'+' if sign else ''}.{digits}f}"


def interval(value: float, low: float, high: float, metric: str, sign: bool = False) -> str:
    """Return a mean with its 95 % interval, alone where there is one seed."""
    digits = {"bpd": 4 if abs(value) < 0.01 else 3, "mse_sampled_clamped": 3, "kl": 1}.get(metric, 1)
    plus = "+" if sign else ""
    if math.isnan(low):
        return f"{value:{plus}.{digits}f}"
    return f"{value:{plus}.{digits}f} [{low:{plus}.{digits}f}, {high:{plus}.{digits}f}]"


def compare(study: str, first: str, second: str, metric: str, expected: int = -1, size: float = math.nan) -> Comparison:
    """Return the comparison of two cells on equal seeds, as the report makes it from the runs themselves."""
    return Comparison(_arm(study, first, metric), _arm(study, second, metric), expected, size)


def _arm(study: str, name: str, metric: str) -> Arm:
    found, read = cell(study, name), values(study, name, metric)
    kept = found.reindex(columns=["setting.epochs", "setting.batch_size", "setting.data.holdout"])
    return Arm(
        dict(zip(read.index, read, strict=True)),
        collapsed(study, name),
        set(found.index),
        {length(*row) for row in kept.itertuples(index=False)},
        raster(study, name) if metric == EPOCHS else 0.0,
    )


def compare_claim(study: str, claim: Any) -> Comparison:
    """Return the comparison of an ordering of a study."""
    first, second = (f"{claim.dataset}/{claim.experiment}/{name}" for name in (claim.first, claim.second))
    expected = -1 if claim.expected == "lower" else 1
    return compare(study, first, second, claim.metric, expected, published(study, claim))


@cache
def _adjusted(study: str) -> dict[Any, float]:
    """Return the p-values of a study's orderings, by their place, after Holm's correction within their families."""
    families = [OURS if claim.basis == OURS else FAMILIES[claim.metric] for claim in claims(study)]
    p_values = [compare_claim(study, claim).p_value for claim in claims(study)]
    adjusted = adjusted_by_family(list(zip(families, p_values, strict=True)))
    return {claim.Index: value for claim, value in zip(claims(study), adjusted, strict=True)}


def raster(study: str, name: str) -> float:
    """Return the epochs between two evaluations, the least uncertainty of a number of epochs read from a curve."""
    return float(cell(study, name)["setting.evaluate_every"].max())


def published(study: str, claim: Any) -> float:
    """Return the published difference; ``nan`` without one, or where it is about another threshold than the study's."""
    cells_of_claim = cell(study, f"{claim.dataset}/{claim.experiment}/{claim.first}")
    if claim.metric == EPOCHS and set(cells_of_claim["setting.threshold_bpd"]) != {THRESHOLD_BPD}:
        return math.nan
    return float(claim.published_difference)


def verdict(study: str, claim: Any) -> str:
    """Judge an ordering as the report does; beside collapsed runs stands the difference of the other pairs."""
    found = compare_claim(study, claim)
    if found.difference.n < 2:
        return "one seed"
    text, rest = found.verdict, found.conditional
    if found.baseline.lost:
        text += f": collapsed {found.baseline.lost} of {len(found.baseline.collapsed)}"
    if rest.n > 1 and (found.method.lost or found.baseline.lost):
        text += f"; others {interval(rest.mean, rest.low, rest.high, claim.metric)} (conditional, n = {rest.n})"
    return text


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table in Markdown, with the blank lines that set it apart from cog's markers."""
    texts = [header, ["---"] * len(header), *lines]
    print("\n" + "\n".join("| " + " | ".join(text) + " |" for text in texts) + "\n")


def ordering(study: str, claim: Any, metric: bool = True) -> str:
    """Return an ordering in words, marked where the two were trained for unequal numbers of epochs."""
    first, second = (f"{claim.dataset}/{claim.experiment}/{name}" for name in (claim.first, claim.second))
    side = "below" if claim.expected == "lower" else "above"
    title = f"{label(first)} {side} {label(second)}{_dagger(compare_claim(study, claim))}"
    return f"{title}, {METRICS[claim.metric]}" if metric else title


def _dagger(found: Comparison) -> str:
    """Return the mark of a comparison of different numbers of steps."""
    return " †" if any(found.steps) else ""


def orderings(
    *studies: str, dataset: str, metrics: Sequence[str] = ("bpd",), others: dict[str, Sequence[str]] | None = None
) -> None:
    """Print the paper's orderings on a data set in some metrics, the columns of each study side by side.

    A difference is bold where it stands after Holm's correction over the orderings of its family in its study.

    Args:
        studies: Studies, a column each.
        dataset: Data set.
        metrics: Metrics.
        others: By title, studies that share a column, since each has other orderings.
    """
    columns = {f"`{study}`": [study] for study in studies} | {title: list(own) for title, own in (others or {}).items()}
    lines: dict[str, list[str]] = {}
    any_published = False
    for place, (study, claim) in _claims_by_column(columns.values(), dataset, metrics):
        title = ordering(study, claim, metric=len(metrics) > 1)
        line = lines.setdefault(title, ["", *[""] * (2 * len(columns))])
        size = published(study, claim)
        if not math.isnan(size):
            line[0], any_published = number(size, claim.metric), True
        if claim.pairs:
            found = compare_claim(study, claim).difference
            text = interval(found.mean, found.low, found.high, claim.metric)
            line[1 + 2 * place] = f"**{text}**" if _adjusted(study)[claim.Index] < 0.05 else text
            line[2 + 2 * place] = verdict(study, claim)
    unit = f", {METRICS[metrics[0]]}" if len(metrics) == 1 else ""
    header = [f"first minus second{unit}", "published", *(text for title in columns for text in (title, "verdict"))]
    skip = 0 if any_published else 1
    table(
        [header[0], *header[1 + skip :]],
        [[title, *line[skip:]] for title, line in lines.items()],
    )


def _claims_by_column(
    columns: Iterable[Sequence[str]], dataset: str, metrics: Sequence[str]
) -> Iterator[tuple[int, tuple[str, Any]]]:
    """Yield the number of a column of studies with each study's orderings on a data set in some metrics."""
    for place, studies in enumerate(columns):
        for study in studies:
            for claim in claims(study):
                if claim.dataset == dataset and claim.metric in metrics:
                    yield place, (study, claim)


def cells(*studies: str, dataset: str, experiment: str, metrics: Sequence[str] = ("bpd",)) -> None:
    """Print the cells of an experiment on a data set, with the published values and the closed-form limit."""
    names = dict.fromkeys(name for study in studies for name in runs(study)["cell"].unique())
    chosen = [name for name in names if name.startswith(f"{dataset}/{experiment}/")]
    chosen.sort(key=lambda name: _method(experiment, name.split("/")[2]).rank)
    header, columns = ["method"], [[label(name) for name in chosen]]
    limits = {}
    for metric in metrics:
        have = [PUBLISHED.get(name, {}).get(metric) for name in chosen]
        digits = 3 if experiment == "fixed" else 2
        if any(value is not None for value in have):
            header.append(f"{METRICS[metric]}, published")
            columns.append(["" if value is None else f"{value:.{digits}f}" for value in have])
        for study in studies:
            found = []
            trained = dict(zip(chosen, unequal([_arm(study, name, metric).lengths for name in chosen]), strict=True))
            for name in chosen:
                key = (*name.split("/"), metric)
                row = rows(study).loc[key] if key in rows(study).index else None
                if row is None or not row["seeds"]:
                    found.append("")
                    continue
                text = interval(row["measured"], row["low"], row["high"], metric)
                text += f" ({trained[name]})" if trained[name] else ""
                lost = sum(collapsed(study, name).values())
                diverged = int(cell(study, name)["status"].str.contains("diverged").sum())
                total = len(cell(study, name))
                text += f"; collapsed {lost} of {total}" if lost and metric == "bpd" else ""
                text += f"; diverged {diverged} of {total}" if diverged and metric == "bpd" else ""
                found.append(text)
                if metric == "bpd" and not math.isnan(row["closed_form"]):
                    limits[len(columns)] = f"*{number(row['closed_form'], 'kl' if metric == 'kl' else 'bpd')}*"
            header.append(METRICS[metric] if len(studies) == 1 else f"{METRICS[metric]}, `{study}`")
            columns.append(found)
    lines = [list(line) for line in zip(*columns, strict=True)]
    if limits:
        title = "probabilistic PCA" if experiment == "fixed" else "factor analysis"
        lines.append([f"*{title}, Gaussian*", *(limits.get(place, "") for place in range(1, len(columns)))])
    table(header, lines)


def variance(study: str, dataset: str, *methods: str, experiment: str = "fixed") -> None:
    """Print the variance of the gradient (batch mean of the images), mean over seeds, by method (all by default)."""
    name = "table-1-gradient-variance" if experiment == "fixed" else f"{experiment}-gradient-variance"
    found = pd.read_csv(MEASURED / study / "tables" / f"{name}.csv").query("dataset == @dataset")
    own = found[(found["estimated_with"] == found["estimator"]) | (found["estimator"] == "none")]
    pivot = own.pivot_table(index="method", columns="epoch", values="batch_mean", sort=False)
    lines = [
        [label(f"{dataset}/{experiment}/{method}"), *("" if math.isnan(v) else _rounded(v) for v in line)]
        for method, line in zip(pivot.index, pivot.to_numpy(), strict=True)
        if not methods or method in methods
    ]
    table(["method", *(f"epoch {epoch}" for epoch in pivot.columns)], lines)


def _rounded(value: float) -> str:
    """Return a variance with three digits."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


_GAINS = (
    *("unguided", "guided", "gain [95 %]", "p, sign flips", "collapsed; p, McNemar"),
    "gain where neither collapsed (conditional), n",
)


def _gain(found: Summary) -> str:
    """Return a gain with its interval: unguided minus guided."""
    return interval(-found.mean, -found.high, -found.low, "bpd")


def _gains(found: Comparison) -> list[str]:
    """Return the columns ``_GAINS`` of a guided method and its baseline."""
    flips, rest = found.sign_flip_p, found.conditional
    return [
        *(f"{summarize(list(dict(arm.values).values())).mean:.3f}" for arm in (found.baseline, found.method)),
        _gain(found.difference),
        "" if math.isnan(flips) else f"{flips:.3f}",
        f"{found.baseline.lost} and {found.method.lost}; {found.mcnemar_p:.3f}",
        f"{_gain(rest)}, {rest.n}" if rest.n else "none",
    ]


LADDERS = {"digits": ("digits-ladder-40", "digits-ladder-160", "digits-ladder-640")}
"""Studies of growing length by data set."""
GUIDED = {name: f"{name}+silent" for name in ("reparameterization", "gumbel-softmax", "reinforce")}
PAIRS = [(guided, name) for name, guided in GUIDED.items()]


def ladder(dataset: str) -> None:
    """Print the guide's gain by estimator and length, and how the last length's differs from the first's."""
    lines = []
    for guided, unguided in PAIRS:
        first_name, name = (f"{dataset}/learnable/{each}" for each in (guided, unguided))
        studies = [study for study in LADDERS[dataset] if len(cell(study, first_name))]
        found = [(study, compare(study, first_name, name, "bpd")) for study in studies]
        for study, compared in found:
            epochs = f"{cell(study, name)['setting.epochs'].iloc[0]:g}"
            lines.append([label(name), epochs, *_gains(compared)])
        if len(found) > 1:
            first, last = found[0][1].differences, found[-1][1].differences
            moved = summarize([last[seed] - first[seed] for seed in sorted(first.keys() & last.keys())])
            lines.append([label(name), "last - first", "", "", _gain(moved), "", "", ""])
    table(["estimator", "epochs", *_GAINS], lines)


def differences(study: str, group: str, *pairs: tuple[str, str], unequal_steps: bool = False) -> None:
    """Print paired differences in bits/dim that the paper does not order, and what limits them.

    Args:
        study: Study.
        group: Data set and experiment; the data set alone where pairs name the experiments.
        pairs: Methods, the first and the second.
        unequal_steps: Numbers of steps differ on purpose, and do not leave a difference undecided.
    """
    lines = []
    every = [(f"{group}/{first}", f"{group}/{second}") for first, second in pairs]
    counts = {compare(study, *names, "bpd").difference.n for names in every}
    of_all = f", n = {min(counts)}" if len(counts) == 1 else ""
    for names in every:
        compared = compare(study, *names, "bpd")
        found = compared.difference
        side, notes = "undecided", [] if of_all else [f"n = {found.n}"]
        if any(compared.steps):
            notes.append(" and ".join(compared.steps))
        if (unequal_steps or not any(compared.steps)) and (found.low > 0 or found.high < 0):
            side = "below" if found.mean < 0 else "above"
        arms = (compared.method, compared.baseline)
        if any(arm.lost for arm in arms):
            notes.append(f"collapsed {' and '.join(str(arm.lost) for arm in arms)}")
        experiments = [name.split("/")[1] for name in names]
        kinds = [""] * 2 if len(set(experiments)) == 1 else [f", {EXPERIMENTS[name].title}" for name in experiments]
        title = " minus ".join(label(name) + kind for name, kind in zip(names, kinds, strict=True))
        lines.append([title, interval(found.mean, found.low, found.high, "bpd"), side, ", ".join(notes)])
    table(["difference, bits/dim", f"mean [95 %]{of_all}", "first is", "notes"], lines)


LOOKS = {6: 8.85, 10: 3.64, 14: 2.77, 20: 2.20}
"""Bounds of t by the number of pairs of a group-sequential study (docs/results/protocol.md, study 3)."""


def look(study: str, guided: str, unguided: str) -> None:
    """Print the gain of a guide at the last look of a group-sequential study, with its repeated interval."""
    gain = compare(study, unguided, guided, "bpd").difference
    half = LOOKS[gain.n] * gain.sd / math.sqrt(gain.n)
    low, high = gain.mean - half, gain.mean + half
    size = PUBLISHED[unguided]["bpd"] - PUBLISHED[guided]["bpd"]
    goes_on = low <= min(0, size) and high >= size and gain.n < max(LOOKS)
    found = f"{interval(gain.mean, low, high, 'bpd')}, a repeated interval"
    print(f"The guide's gain for {label(unguided)} after {gain.n} pairs: {found}; ", end="")
    print(f"the study {'goes on' if goes_on else 'ends'}.\n")


# The paper's claims in bits/dim that the overview has a column for: experiment, the two methods, and a short name.
_CLAIMS = (
    ("fixed", "silent-gaussian", "reparameterization", "exact - reparam."),
    ("fixed", "silent-bernoulli", "gumbel-softmax", "exact - relaxed"),
    ("fixed", "silent-bernoulli", "reinforce", "exact - REINFORCE"),
    ("learnable", "reparameterization+silent", "reparameterization", "reparam. + SG"),
    ("learnable", "gumbel-softmax+silent", "gumbel-softmax", "relaxed + SG"),
    ("learnable", "reinforce+silent", "reinforce", "REINFORCE + SG"),
    ("learnable", "silent-bernoulli", "reinforce", "SG alone - REINFORCE"),
)
_MARKS = {
    "reproduced": "●",
    "reproduced so far": "●",
    "same direction": "◐",
    "same direction, other size": "◐",
    "undecided": "○",
    "not comparable": "≠",
    "contradicted": "✗",
    "one seed": "1",
}
"""By verdict."""


def gallery() -> None:
    """Print every study by data set: epochs, seeds, and its difference and verdict for each of the claims."""
    lines = []
    for study, page in STUDIES.items():
        by_dataset = runs(study).groupby("setting.data.name", sort=False)
        for dataset, own in by_dataset:
            line = [
                f"[`{study}`]({page}){f', {SETS[str(dataset)]}' if len(by_dataset) > 1 else ''}",
                "/".join(f"{epochs:g}" for epochs in sorted(own["setting.epochs"].unique())),
                str(own["seed"].nunique()),
            ]
            for experiment, first, second, _name in _CLAIMS:
                found = [
                    claim
                    for claim in claims(study)
                    if (claim.dataset, claim.experiment, claim.first, claim.second, claim.metric)
                    == (dataset, experiment, first, second, "bpd")
                    and claim.pairs
                ]
                if not found:
                    line.append("")
                    continue
                compared = compare_claim(study, found[0])
                mark = _MARKS["one seed" if compared.difference.n < 2 else compared.verdict]
                line.append(f"{number(compared.difference.mean, 'bpd')} {mark}{_dagger(compared).strip()}")
            lines.append(line)
    table(["study", "epochs", "seeds", *(name for *_, name in _CLAIMS)], lines)


def snapshots(study: str, split: str) -> None:
    """Print the bits/dim of a study's snapshots on a split, by epoch and cell."""
    kept = json.loads((MEASURED / study / "snapshots.json").read_text())
    found = pd.DataFrame([entry for entries in kept.values() for entry in entries])
    found["cell"] = found["run"].map(lambda name: "/".join(name.split("/")[:3]))
    pivot = found[found["split"] == split].pivot_table(index="epoch", columns="cell", values="bpd")
    header = [f"epoch ({split} images)", *map(label, pivot.columns)]
    table(
        header,
        [
            [str(epoch), *(f"{value:.4f}" for value in line)]
            for epoch, line in zip(pivot.index, pivot.to_numpy(), strict=True)
        ],
    )


def curve_of(study: str, name: str) -> pd.DataFrame:
    """Return the learning curve of a cell by its name."""
    group, _, method = name.rpartition("/")
    curves = pd.read_csv(MEASURED / study / "curves" / f"{group}.csv")
    return curves[curves["method"] == method]


def _reached(study: str, name: str) -> str:
    """Return the first evaluated epoch at which the mean selection bits/dim of a cell is at or below the threshold."""
    curve = curve_of(study, name)
    found = curve[curve["selection_bpd"] <= THRESHOLD_BPD]["epoch"]
    return str(found.iloc[0]) if len(found) else "not reached"


def grid(study: str, dataset: str, experiment: str, *methods: str) -> None:
    """Print the bits/dim of every point of some methods' grids on the images to select on."""
    found = pd.read_csv(MEASURED / study / "tables" / "grid.csv")
    found = found[(found["dataset"] == dataset) & (found["experiment"] == experiment) & found["method"].isin(methods)]
    lines = []
    for method, members in found.groupby("method", sort=False):
        points = [_point(text) for text in members["point"]]
        for row, point in zip(members.itertuples(), points, strict=True):
            edges = ", ".join(f"`{axis}`" for axis in edges_of(point, points))
            selected = f"selected{f', at the edge of {edges}' if edges else ''}" if row.selected else ""
            lines.append(
                [label(f"{dataset}/{experiment}/{method}"), f"`{row.point}`", f"{row.selection_bpd:.4f}", selected]
            )
    table(["method", "point", "bits/dim", "selected"], lines)


def _point(text: str) -> dict[str, Any]:
    """Return the axes of a grid point from "learning_rate=0.001, silent.cutoff_epoch=None"."""
    pairs = (part.partition("=") for part in text.split(", "))
    return {axis: None if value == "None" else float(value) for axis, _, value in pairs}


def implied(title: str) -> None:
    """Print a table of what the published numbers imply about lost settings."""
    from studies.implied_settings import tables_of_the_numbers

    print(f"\n{tables_of_the_numbers()[title]}\n")


def reruns() -> None:
    """Print what an edit of each key of params.yaml runs again, as the tests hold it: a row for equal answers."""
    kept = yaml.safe_load((ROOT / "tests" / "params" / "reruns.yaml").read_text())
    keys: dict[tuple[str, ...], list[str]] = {}
    for key, (_value, *words) in kept.items():
        keys.setdefault(tuple(words), []).append(f"`{key}`")
    header = ["trained", "jobs", "selected again", "report again", "keys"]
    table(header, [[*words, ", ".join(names)] for words, names in keys.items()])


def modules(*packages: str) -> None:
    """Print the modules of packages as a tree, each with the first line of its docstring; a folder has its own."""
    print("\n```text")
    for package in packages:
        # A folder's own modules stand before the folders in it.
        for path in sorted((SOURCE / package).rglob("*.py"), key=lambda path: (path.parent.parts, path.name)):
            first, *_ = (ast.get_docstring(ast.parse(path.read_text())) or "").replace("``", "").splitlines()
            inside = path.relative_to(SOURCE)
            own, depth = (inside.name, 1) if path.name != "__init__.py" else (f"{inside.parent.name}/", 0)
            name = "    " * (len(inside.parts) - 2 + depth) + own
            print(f"{name:<35} {first}")
    print("```\n")


def verbs() -> None:
    """Print the verbs of the command line with their help."""
    from silent_study.cli import parser

    (found,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    table(["verb", "what it does"], [[f"`{verb.dest}`", str(verb.help)] for verb in found._choices_actions])


def arms(study: str, name: str) -> dict[str, pd.DataFrame]:
    """Return bits/dim, KL and active units of a cell's runs by change, of test images if the study has evaluated them.

    ``measured/<study>/<method>.json`` is the ``runs.json`` of ``studies/sensitivity.py``.
    """
    kept = json.loads((MEASURED / study / f"{name.split('/')[2]}.json").read_text())[name]
    return {
        change: pd.DataFrame([member.get("report") or member["selection"] or {} for member in members]).astype(
            {"bpd": float, "kl": float}
        )
        for change, members in kept.items()
    }


def lost(found: pd.DataFrame) -> pd.Series:
    """Return which runs have collapsed, as the report judges it."""
    metrics: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    return pd.Series([has_collapsed(each) for each in metrics], index=found.index)


def _paired(found: pd.DataFrame) -> Arm:
    """Return the bounds and collapses of runs, for a comparison."""
    return Arm(dict(found["bpd"].dropna()), dict(lost(found)), set(found.index))


def remedies(study: str, *names: str, only: Sequence[str] = ()) -> None:
    """Print changes of cells, or those named: the bound, its paired difference from the first, the collapsed runs."""
    every = [(name, change, found) for name in names for change, found in arms(study, name).items()]
    every = [row for row in every if not only or row[1] in only]
    if not every:
        raise ValueError(f"{study}: no change of {', '.join(names)} is named {' or '.join(only)}")
    first = _paired(every[0][2])
    lines = []
    for name, change, runs in every:
        compared = Comparison(_paired(runs), first, -1, math.nan)
        texts = ["", ""]
        if runs is not every[0][2]:
            moved, flips = compared.difference, compared.sign_flip_p
            text = interval(moved.mean, moved.low, moved.high, "bpd", sign=True)
            texts = [f"**{text}**" if moved.high < 0 else text, "" if math.isnan(flips) else f"{flips:.3f}"]
        title = "*none*" if change == "as it is" else f"`{change}`"
        counts = f"{int(lost(runs).sum())} ({int((runs['active_units'] == 0).sum())})"
        if len(runs) != len(every[0][2]):
            counts += f" of {len(runs)}"
        lines.append([label(name), title, f"{runs['bpd'].mean():.3f}", *texts, counts])
    own = 0 if len(names) > 1 else 1
    header = ["method", "change", "bits/dim", "minus the first [95 %]", "p, sign flips", "collapsed (no active unit)"]
    table(header[own:], (line[own:] for line in lines))


def gains(study: str, *pairs: tuple[str, str]) -> None:
    """Print the guide's gain under a change of both arms: unguided cells and changes."""
    lines = []
    for name, change in pairs:
        guided, unguided = (_paired(arms(study, each)[change]) for each in (f"{name}+silent", name))
        title = "*none*" if change == "as it is" else f"`{change}`"
        lines.append([label(name), title, *_gains(Comparison(guided, unguided, -1, math.nan))])
    table(["estimator", "change of both", *_GAINS], lines)


def effects(study: str, table_: str, name: str) -> pd.DataFrame:
    """Return a table that ``studies/guide_effects.py`` keeps of an unguided cell and its guided counterpart."""
    return pd.read_csv(MEASURED / study / f"{table_}-{name.replace('/', '-')}.csv")


def parts(study: str, *names: str) -> None:
    """Print the guide's gain in bits/dim by class of pixels and by the KL divergence."""
    lines = []
    for name in names:
        estimator = name.split("/")[2]
        by_method = effects(study, "pixels", name).set_index("seed").groupby("method")
        guided, unguided = (by_method.get_group(each).drop(columns="method") for each in (GUIDED[estimator], estimator))
        first_minus_second = guided - unguided
        first_minus_second.insert(0, "all", first_minus_second.sum(axis="columns"))
        lines.append([label(name), *(_gain(summarize(list(part))) for _, part in first_minus_second.items())])
    header = ["estimator", "all", "constant pixels", "background", "strokes", "KL divergence"]
    table(header, lines)


# Rows of the summary: study, data set, experiment and the two methods that are ordered.
SUMMARY = (
    ("mnist-reduced-cooldown", "mnist", "fixed", "silent-gaussian", "reparameterization"),
    ("mnist-reduced-cooldown-bits", "mnist", "fixed", "silent-bernoulli", "gumbel-softmax"),
    ("mnist-reduced-protocol-paper", "mnist", "fixed", "silent-bernoulli", "reinforce"),
    ("mnist-sequential", "mnist", "learnable", "reparameterization+silent", "reparameterization"),
    ("colour-reduced-cooldown", "cifar10", "learnable", "reparameterization+silent", "reparameterization"),
    ("colour-reduced-cooldown", "cifar10", "learnable", "gumbel-softmax+silent", "gumbel-softmax"),
    ("colour-reduced-cooldown", "cifar10", "learnable", "reinforce+silent", "reinforce"),
    ("colour-reduced-cooldown", "cifar10", "learnable", "silent-bernoulli", "reinforce"),
    ("colour-reduced-cooldown", "cifar10", "learnable", "reparameterization+silent", "silent-gaussian"),
)
_PUBLISHED_EPOCHS = {"fixed": {"mnist": 500}, "learnable": {"mnist": 200, "cifar10": 2000}}


def _ordered(study: str, dataset: str, experiment: str, first: str, second: str) -> Any:
    """Return an ordering in bits/dim of a study; one that its table lacks, of two methods that the paper reports."""
    for claim in claims(study):
        wanted = (dataset, experiment, first, second, "bpd")
        if (claim.dataset, claim.experiment, claim.first, claim.second, claim.metric) == wanted:
            return claim
    names = [f"{dataset}/{experiment}/{name}" for name in (first, second)]
    return SimpleNamespace(
        dataset=dataset,
        experiment=experiment,
        first=first,
        second=second,
        metric="bpd",
        expected="lower",
        published_difference=PUBLISHED[names[0]]["bpd"] - PUBLISHED[names[1]]["bpd"],
    )


def summarized(row: tuple[str, ...]) -> tuple[Any, Comparison, int]:
    """Return the claim of a row of ``SUMMARY``, the comparison that judges it and its epochs."""
    study, dataset, experiment, first, second = row
    claim = _ordered(study, dataset, experiment, first, second)
    epochs = int(cell(study, f"{dataset}/{experiment}/{first}")["setting.epochs"].iloc[0])
    return claim, compare_claim(study, claim), epochs


def headline(folder: str, *places: int) -> None:
    """Print some rows of ``SUMMARY`` in short; ``folder`` is the path of docs/results from the page."""
    lines = []
    for row in (SUMMARY[place] for place in places):
        study, dataset, experiment, *_ = row
        claim, compared, epochs = summarized(row)
        found = compared.difference
        scale = f"{SETS[dataset]} {epochs}/{_PUBLISHED_EPOCHS[experiment][dataset]}"
        here = interval(found.mean, found.low, found.high, "bpd")
        title = f"{ordering(study, claim, metric=False)}, [{scale}]({folder}/{STUDIES[study]})"
        lines.append([title, number(claim.published_difference, "bpd"), here, verdict(study, claim)])
    table(["claim", "paper", "here [95 %]", "verdict"], lines)


def summary(folder: str = "results") -> None:
    """Print the paper's claims, each by the longest of its studies with several seeds; speed by that at full length.

    Args:
        folder: Path of docs/results from the page.
    """
    lines = []
    for row in SUMMARY:
        study, dataset, experiment, *_ = row
        claim, compared, epochs = summarized(row)
        found = compared.difference
        scale = f"{SETS[dataset]}, {epochs} of {_PUBLISHED_EPOCHS[experiment][dataset]} epochs, n = {found.n}"
        lines.append(
            [
                ordering(study, claim, metric=False),
                number(claim.published_difference, "bpd"),
                interval(found.mean, found.low, found.high, "bpd"),
                f"[{scale}]({folder}/{STUDIES[study]})",
                verdict(study, claim),
            ]
        )
    study = "mnist-fixed-500-epochs"
    names = [f"mnist/fixed/{name}" for name in ("silent-gaussian", "reparameterization")]
    speed = [
        f"{' and '.join(map(label, names))}: epochs to {THRESHOLD_BPD}, evaluated every {raster(study, names[0]):g}",
        " and ".join(f"{PUBLISHED[name]['epochs_to_threshold']:g}" for name in names),
        " and ".join(_reached(study, name) for name in names),
        f"[MNIST, calibrated learning rate, n = 1]({folder}/{STUDIES[study]})",
        "one seed",
    ]
    header = ["first minus second, bits/dim", "published", "here [95 %]", "scale", "verdict"]
    table(header, [*lines, speed])


# What a preset is for, and the studies of which the runs tell its hours.
_PRESETS = {
    "digits": ("the default", ("digits",)),
    "digits-beyond": ("more methods", ("digits-beyond",)),
    "digits-exact": ("nonlinear, exact", ("digits-exact",)),
    "mnist-short": ("smoke test", ()),
    "mnist-reduced": ("small networks", ("mnist-reduced",)),
    "mnist-fixed": ("90/500 epochs", ("mnist-fixed",)),
    "mnist-beyond": ("more methods", ("mnist-beyond",)),
    "mnist-exact": ("nonlinear, exact", ()),
    "colour-reduced": ("colour images", ("colour-reduced", "colour-reduced-protocol-paper")),
    "paper": ("full size", ()),
}
# Core hours that `silent-gradients plan` estimates after `silent-gradients pace`, both with `--config preset=NAME`; an
# AMD EPYC with AVX2.
_ESTIMATED = {"mnist-short": 0.7, "mnist-exact": 11.4}


@cache
def disk(preset: str) -> int:
    """Return the bytes of a preset's prepared data and of the weights and snapshots of its selected runs."""
    from silent_study.training.build import build_vae

    params = resolve({"preset": preset}, ROOT / "presets")
    plan = Plan(params)
    sources = [SOURCES[name] for name in plan.datasets()]
    # One byte a value, and four for the evaluation noise of the test images.
    size = sum(math.prod(source.shape) * (source.train + 5 * source.test) for source in sources)
    for run in map(plan.first_run, plan.cells_of("seeds")):
        scale = np.ones(run.data.dimensions)
        weights = sum(value.nbytes for value in build_vae(run, scale, scale).state_dict().values())
        size += weights * len(params.seeds) * (1 + len(run.snapshot_epochs))
    return size


def presets() -> None:
    """Print the presets with the hours of training that their kept studies recorded, and the disk that they take."""
    lines = []
    for name, (purpose, kept) in _PRESETS.items():
        hours: dict[str, list[float]] = {}
        for study in kept:
            every = pd.read_csv(MEASURED / study / "runs.csv")
            kind = "GPU" if every["hardware"].str.contains("NVIDIA").any() else "core"
            hours.setdefault(kind, []).append(every["seconds"].sum() / 3600)
        texts = [f"{'-'.join(f'{value:.1f}' for value in sorted(found))} {kind}" for kind, found in hours.items()]
        texts += [f"≈ {_ESTIMATED[name]} core"] if name in _ESTIMATED else []
        lines.append([f"`{name}`", purpose, ", ".join(texts), decimal(disk(name), precision=0)])
    table(["preset", "", "hours", "disk"], lines)
