"""Synthetic runs in the store's format: the report is tested without training anything."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from silent_study.methods import METHODS
from silent_study.report.cells import Cell, Context, Record, cells
from silent_study.report.claims import Claim, claims
from silent_study.report.gather import gather, tables_of
from silent_study.report.grids import GridPoint, grid_points
from silent_study.report.printed import Table
from silent_study.settings import RunSettings
from silent_study.store.runs import read_json

SHA256 = "0123456789abcdef" * 4
FIXED = ("silent-gaussian", "reparameterization", "silent-bernoulli", "gumbel-softmax", "reinforce")
LEARNABLE = (*FIXED, "reparameterization+silent", "gumbel-softmax+silent", "reinforce+silent")
MISSING = "digits/learnable/gumbel-softmax+silent"


def settings(cell: str, seed: int = 0, epochs: int = 20, **changes: Any) -> dict[str, Any]:
    """A run's settings as ``settings.json`` has them; changes are named by dotted path with ``__`` for the dot."""
    dataset, experiment, method = cell.split("/")
    kind = METHODS[experiment][method]
    data = {"name": dataset, "sha256": SHA256, "shape": [1, 8, 8], "levels": 17, "protocol": "holdout", "holdout": 200}
    guide: dict[str, Any] = {"plateau_epochs": 0.0, "annealing_rate": 0.1, "cutoff_epoch": None, "mean_rate": 1e-3}
    guide |= {"precision_rate": 1e-3, "guide": "linear", "log_term": "auto"}
    document: dict[str, Any] = {
        "experiment": experiment,
        "method": method,
        "data": data,
        "posterior": kind.posterior,
        "latent_dim": 16,
        "network": {"architecture": "plain", "encoder_channels": [8, 8, 8], "decoder_channels": [8, 8, 8, 8]},
        "initialization": "standardized",
        "precision": "float32",
        "estimator": kind.estimator,
        "estimator_options": {option: float(value) for option, value in kind.options.items()},
        "silent": None if kind.guide == "none" else {"role": kind.guide, "sampled": kind.sampled, **guide},
        "variance": 0.01 if experiment in ("fixed", "two-layer") else None,
        "seed": seed,
        "epochs": epochs,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "mean_rate": 1e-3 if experiment != "learnable" else None,
        "precision_rate": 1e-3 if experiment == "log-linear" else None,
        "betas": [0.9, 0.999],
        "weight_decay": 0.01,
        "gradient_clip": None,
        "evaluate_every": 1,
        "evaluation_samples": 16,
        "snapshot_epochs": [2, 20],
        "threshold_bpd": 3.0,
        **({"activation": "square", "hidden_units": 8} if experiment == "two-layer" else {}),
    }
    for path, value in changes.items():
        *parents, leaf = path.split("__")
        place = document
        for parent in parents:
            place = place[parent]
        place[leaf] = value
    # The builder must not drift away from what a real run's settings are.
    assert RunSettings.from_json(document).to_json() == document
    return document


def metrics(split: str, bpd: float, kl: float, mse: float, active_units: int = 14) -> dict[str, Any]:
    counts = {"split": split, "images": 360, "samples": 16, "active_units": active_units, "latent_dim": 16}
    bounds = {"bpd": bpd, "bpd_mc_error": 0.002, "bpd_median_image": bpd - 0.05, "kl": kl, "saturated_fraction": None}
    errors = {"mse_mean_decoded": mse * 0.7, "mse_sampled": mse * 1.2, "mse_sampled_clamped": mse}
    return counts | bounds | errors


def variances(epoch: int, estimator: str, batch_mean: float) -> dict[str, Any]:
    """An entry of an evaluation's gradient variances."""
    values = {"batch_mean": batch_mean, "per_image_mean": 64 * batch_mean}
    return {"epoch": epoch, "estimators": {estimator: values}, "images": 64, "draws": 100}


def write_run(
    store: Path,
    cell: str,
    *,
    seed: int = 0,
    bpd: float = 2.5,
    kl: float = 20.0,
    mse: float = 3.0,
    active_units: int = 14,
    selected: bool = True,
    diverged_epoch: int | None = None,
    flattened: bool = True,
    epochs: int = 20,
    epochs_to_threshold: int | None = 12,
    limit: dict[str, Any] | None = None,
    gradient_variance: Iterable[dict[str, Any]] | None = None,
    revision: str = "aaaaaaaaaaaaaaaa",
    made: Mapping[str, Any] | None = None,
    name: str | None = None,
    **changes: Any,
) -> Path:
    """Write one run's folder and return it."""
    document = settings(cell, seed, epochs, **changes)
    identity = f"{abs(hash(json.dumps(document))) % 16**12:012x}" if name is None else name
    name = name or f"{cell}/learning_rate={document['learning_rate']},seed={seed}-{identity}"
    folder = store / name
    folder.mkdir(parents=True)
    diverged = diverged_epoch is not None
    last = diverged_epoch or epochs
    curve = []
    for epoch in range(1, last + 1):
        bound = None if diverged and epoch == last else bpd + 2 / epoch
        training = {
            "epoch": epoch,
            "train_bpd": bound,
            "train_kl": kl,
            "alpha": 1.0,
            "frozen": False,
            "guide_bpd": None,
        }
        curve.append(training | {"selection_bpd": bound and bound + 0.02, "selection_kl": kl})
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    record = {"numerics_version": 2, "files": {}, "result_sha256": SHA256, "replaces": []}
    files: dict[str, Any] = {
        "settings": document,
        "result": {
            "status": "diverged" if diverged else "finished",
            "diverged_epoch": diverged_epoch,
            "epochs": last,
            "selection": None if diverged else metrics("holdout", bpd + 0.02, kl, mse),
            "flattened": flattened and not diverged,
            "epochs_to_threshold": None if diverged else epochs_to_threshold,
            "threshold_bpd": 3.0,
        },
        "code": {"digest": revision, "files": {}},
        "provenance": {
            "source": {"revision": revision, "modified": False},
            "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
            "hardware": "a synthetic processor",
            "device": "cpu",
            "seconds": 36.0,
            "images_per_second": 1234.5,
            "started": f"2026-01-0{seed + 1}T00:00:00+00:00",
            **(made or {}),
        },
        "record": record | {"id": identity, "name": name},
    }
    if selected and not diverged:
        if gradient_variance is None:
            scale = 0.0 if document["method"].startswith("silent-") else 2000.0 if "gumbel" in cell else 2.0
            gradient_variance = [variances(epoch, document["estimator"], scale / epoch) for epoch in (2, 20)]
        files["evaluation"] = {
            "report": metrics("test", bpd, kl, mse, active_units),
            "train": metrics("train", bpd - 0.1, kl, mse),
            "limit": limit,
            "gradient_variance": list(gradient_variance),
        }
        generator = np.random.default_rng(0)
        shape = (8, *document["data"]["shape"])
        arrays = {"originals": generator.random(shape), "means": generator.random(shape)}
        if document["experiment"] != "fixed":
            arrays["standard_deviations"] = generator.random(shape) * 0.2
        single: dict[str, Any] = {key: value.astype(np.float32) for key, value in arrays.items()}
        np.savez(folder / "reconstructions.npz", **single)
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content, sort_keys=True, indent=1))
    return folder


def record_of(folder: Path, round_: Any) -> Record:
    identity = read_json(folder / "record.json")
    return Record(identity["name"], folder, identity, round_)


def latents(shape: Sequence[int], noise: float = 0.0) -> dict[str, Any]:
    """What ``kept_latents`` returns: ever brighter images, with noise as a share of the scale."""
    bright = np.linspace(0, 255 * (1 - noise), 7)[:, None, None, None]
    images = bright + 255 * noise * np.random.default_rng(0).random((6, 7, *shape))
    arrays = {"samples": images[0].astype(np.uint8), "traversals": images.astype(np.uint8)}
    return arrays | {"units": np.array([7, 3, 0, 1, 2, 4]), "kl": np.array([2.5, 1.25, 0.5, 0.25, 0.12, 0.06])}


def context_of(expected: Iterable[str], **changes: Any) -> Context:
    options: dict[str, Any] = {
        "preset": "digits",
        "protocol": "holdout",
        "expected_cells": tuple(expected),
        "seeds": (0, 1, 2),
        "datasets": {"digits": {"version": "1.0", "sha256": SHA256}},
        "revision": "aaaaaaaaaaaaaaaa",
        **{name: {} for name in ("selections", "grid_axes", "overrides", "factor_analysis", "latents")},
    }
    return Context(**(options | changes))


@dataclass
class Study:
    """The runs of a synthetic plan and what the report makes of them."""

    store: Path
    records: list[Record] = field(default_factory=list)
    planned: tuple[str, ...] = ()  # cells; those with a run if empty
    options: dict[str, Any] = field(default_factory=dict)  # see ``Context``

    def add(self, cell: str, rounds: Iterable[str] = ("seeds",), **options: Any) -> Record:
        folder = write_run(self.store, cell, **options)
        self.records += [record_of(folder, name) for name in rounds]
        return self.records[-1]

    def add_seeds(self, cell: str, bounds: Iterable[float], **options: Any) -> None:
        for seed, bpd in enumerate(bounds):
            self.add(cell, seed=seed, bpd=bpd, **options)

    @property
    def context(self) -> Context:
        return context_of(self.planned or dict.fromkeys(run.cell for run in self.records), **self.options)

    @property
    def cells(self) -> list[Cell]:
        return cells(self.records, self.context)

    @property
    def claims(self) -> dict[tuple[str, str, str], Claim]:
        """By the names of the two methods, and the metric."""
        found = claims(self.cells)
        return {(claim.first.method.name, claim.second.method.name, claim.metric): claim for claim in found}

    @property
    def points(self) -> list[GridPoint]:
        return grid_points(self.records, self.context)

    @property
    def tables(self) -> dict[str, Table]:
        laid_out = tables_of(self.cells, claims(self.cells), self.points, self.context)
        return {table.name: table for table in laid_out}

    def gather(self, out: Path) -> list[Path]:
        return gather(self.records, self.context, out)


def row(frame: pd.DataFrame, **where: Any) -> dict[Any, Any]:
    """The only row of a table with these values."""
    for column, value in where.items():
        frame = frame[frame[column] == value]
    (found,) = frame.to_dict("records")
    return found


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study without runs."""
    return Study(tmp_path / "store")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small whole plan on two experiments: grids of two rates, three seeds, one cell never run. Not to be changed."""
    planned = [f"digits/fixed/{method}" for method in FIXED] + [f"digits/learnable/{method}" for method in LEARNABLE]
    made = Study(tmp_path_factory.mktemp("study") / "store", planned=tuple(planned))
    selections = {}
    for number, cell in enumerate(planned):
        if cell != MISSING:
            grid = "guided" if "+" in cell else "baselines"
            for seed in range(3):
                value = 2.5 + 0.01 * number + 0.003 * seed * (1 + number % 3)
                made.add(cell, ("seeds",) if seed else ("seeds", grid), seed=seed, bpd=value, kl=20.0 + number + seed)
            made.add(cell, (grid,), bpd=2.9 + 0.01 * number, selected=False, learning_rate=1e-4)
            selections[cell] = {"point": {"learning_rate": 1e-3}, "configurations": 2, "bpd": 2.5}
    made.options["selections"] = selections
    made.options["latents"] = dict.fromkeys(selections, latents((1, 8, 8))) | {planned[0]: None}
    return made


@pytest.fixture(scope="session")
def gathered(whole: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the whole plan. Not to be changed."""
    out = tmp_path_factory.mktemp("gathered") / "results"
    whole.gather(out)
    return out
