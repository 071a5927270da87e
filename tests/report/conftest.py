"""Synthetic runs in the store's format, so that the report can be tested without training anything."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from silent_study.methods import METHODS
from silent_study.report.context import Context, Record
from silent_study.settings import RunSettings
from silent_study.store.runs import read_json

SHA256 = "0123456789abcdef" * 4
FIXED = ("silent-gaussian", "reparameterization", "silent-bernoulli", "gumbel-softmax", "reinforce")
LEARNABLE = (*FIXED, "reparameterization+silent", "gumbel-softmax+silent", "reinforce+silent")


def settings(cell: str, seed: int = 0, epochs: int = 20, **changes: Any) -> dict[str, Any]:
    """A run's settings as ``settings.json`` has them; changes are named by dotted path with ``__`` for the dot."""
    dataset, experiment, method = cell.split("/")
    kind = METHODS[experiment][method]
    document: dict[str, Any] = {
        "experiment": experiment,
        "method": method,
        "data": {
            "name": dataset,
            "sha256": SHA256,
            "shape": [1, 8, 8],
            "levels": 17,
            "protocol": "holdout",
            "holdout": 200,
        },
        "posterior": kind.posterior,
        "latent_dim": 16,
        "network": {"architecture": "plain", "encoder_channels": [8, 8, 8], "decoder_channels": [8, 8, 8, 8]},
        "initialization": "standardized",
        "precision": "float32",
        "estimator": kind.estimator,
        "estimator_options": {option: float(value) for option, value in kind.options.items()},
        "silent": {
            "role": kind.guide,
            "sampled": kind.sampled,
            "plateau_epochs": 0.0,
            "annealing_rate": 0.1,
            "cutoff_epoch": None,
            "mean_rate": 1e-3,
            "precision_rate": 1e-3,
            "guide": "linear",
            "log_term": "auto",
        }
        if kind.guide != "none"
        else None,
        "variance": 0.01 if experiment == "fixed" else None,
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
    return {
        "split": split,
        "images": 360,
        "samples": 16,
        "bpd": bpd,
        "bpd_mc_error": 0.002,
        "bpd_median_image": bpd - 0.05,
        "kl": kl,
        "active_units": active_units,
        "latent_dim": 16,
        "saturated_fraction": None,
        "mse_mean_decoded": mse * 0.7,
        "mse_sampled": mse * 1.2,
        "mse_sampled_clamped": mse,
    }


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
    name: str | None = None,
    **changes: Any,
) -> Path:
    """Write one run's folder and return it."""
    document = settings(cell, seed, epochs, **changes)
    method = cell.split("/")[2]
    identity = f"{abs(hash(json.dumps(document))) % 16**12:012x}" if name is None else name
    rate = document["learning_rate"]
    name = name or f"{cell}/learning_rate={rate},seed={seed}-{identity}"
    folder = store / name
    folder.mkdir(parents=True)
    diverged = diverged_epoch is not None
    last = diverged_epoch or epochs
    curve = [
        {
            "epoch": epoch,
            "train_bpd": None if diverged and epoch == last else bpd + 2 / epoch,
            "train_kl": kl,
            "alpha": 1.0,
            "frozen": False,
            "selection_bpd": None if diverged and epoch == last else bpd + 0.02 + 2 / epoch,
            "selection_kl": kl,
            "guide_bpd": None,
        }
        for epoch in range(1, last + 1)
    ]
    (folder / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    files = {
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
        "provenance": {
            "source": {"revision": revision, "modified": False},
            "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
            "hardware": "a synthetic processor",
            "device": "cpu",
            "seconds": 36.0,
            "images_per_second": 1234.5,
            "started": f"2026-01-0{seed + 1}T00:00:00+00:00",
        },
        "record": {"id": identity, "name": name, "numerics_version": 2, "files": {}, "replaces": None},
    }
    if selected and not diverged:
        if gradient_variance is None:
            scale = 0.0 if method.startswith("silent-") else {"reinforce": 400.0}.get(method, 2.0)
            gradient_variance = [
                {
                    "epoch": epoch,
                    "estimators": {
                        document["estimator"]: {"batch_mean": scale / epoch, "per_image_mean": 64 * scale / epoch}
                    },
                    "images": 64,
                    "draws": 100,
                }
                for epoch in (2, 20)
            ]
        files["evaluation"] = {
            "report": metrics("test", bpd, kl, mse, active_units),
            "train": metrics("train", bpd - 0.1, kl, mse),
            "limit": limit,
            "gradient_variance": list(gradient_variance),
        }
        generator = np.random.default_rng(0)
        channels, height, width = document["data"]["shape"]
        shape = (8, channels, height, width)
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


@dataclass
class Builder:
    """Collects runs of a synthetic plan."""

    store: Path
    records: list[Record] = field(default_factory=list)

    def add(self, cell: str, rounds: Iterable[str] = ("seeds",), **options: Any) -> Record:
        folder = write_run(self.store, cell, **options)
        self.records += [record_of(folder, name) for name in rounds]
        return self.records[-1]


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path / "store")


def context_of(cells: Iterable[str], **changes: Any) -> Context:
    options: dict[str, Any] = {
        "preset": "digits",
        "protocol": "holdout",
        "expected_cells": tuple(cells),
        "seeds": (0, 1, 2),
        "datasets": {"digits": {"version": "1.0", "sha256": SHA256}},
        "revision": "aaaaaaaaaaaaaaaa",
    }
    return Context(**(options | changes))


@pytest.fixture(scope="session")
def make_context() -> Callable[..., Context]:
    return context_of


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Context]:
    """A small whole plan on two experiments: grids of two rates, three seeds, one cell never run. Not to be changed."""
    builder = Builder(tmp_path_factory.mktemp("study") / "store")
    missing = "digits/learnable/gumbel-softmax+silent"
    cells = [f"digits/fixed/{method}" for method in FIXED] + [f"digits/learnable/{method}" for method in LEARNABLE]
    selections = {}
    for number, cell in enumerate(cells):
        if cell == missing:
            continue
        grid = "guided" if "+" in cell else "baselines"
        for seed in range(3):
            value = 2.5 + 0.01 * number + 0.003 * seed * (1 + number % 3)
            builder.add(cell, ("seeds",) if seed else ("seeds", grid), seed=seed, bpd=value, kl=20.0 + number + seed)
        builder.add(cell, (grid,), bpd=2.9 + 0.01 * number, selected=False, learning_rate=1e-4)
        selections[cell] = {"point": {"learning_rate": 1e-3}, "configurations": 2, "bpd": 2.5}
    return builder.records, context_of(cells, selections=selections)


@pytest.fixture(scope="session")
def gathered(study: tuple[list[Record], Context], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the study. Not to be changed."""
    from silent_study.report.gather import gather

    records, context = study
    out = tmp_path_factory.mktemp("gathered") / "results"
    gather(records, context, out)
    return out
