"""What the report reads: finished runs, and the plan that they were made for.

Importing this module is cheap; pandas and numpy are loaded when a curve or a reconstruction is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Round = Literal["baselines", "guided", "seeds"]

CURVE_COLUMNS = (
    "epoch",
    "train_bpd",
    "train_kl",
    "alpha",
    "frozen",
    "selection_bpd",
    "selection_kl",
    "guide_bpd",
    "seconds",
)


class RecordError(ValueError):
    """A run's folder that cannot be reported: the message names the folder and what is wrong with it."""


@dataclass(frozen=True)
class Record:
    """One finished (or diverged) run as a round of the plan asked for it.

    A run that two rounds share appears once for each of them.

    Attributes:
        name: Name relative to the store, ``<cell>/<readable>-<id>``.
        cell: ``dataset/experiment/method``.
        settings: Content of ``settings.json`` (``RunSettings.to_json``).
        result: Content of ``result.json``.
        evaluation: Content of ``evaluation.json``; ``None`` for a run that was not selected or that diverged.
        provenance: Content of ``provenance.json``.
    """

    name: str
    folder: Path
    cell: str
    dataset: str
    experiment: str
    method: str
    round: Round
    settings: dict[str, Any]
    result: dict[str, Any]
    evaluation: dict[str, Any] | None
    provenance: dict[str, Any]
    identity: dict[str, Any]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.settings["seed"])

    @property
    def diverged(self) -> bool:
        """Whether training ended in values that are not finite."""
        return bool(self.result["status"] == "diverged")

    @cached_property
    def curve(self) -> pd.DataFrame:
        """``curve.jsonl``: one row per epoch with ``CURVE_COLUMNS``; bounds in bits/dim, KL in nats per image."""
        import pandas as pd

        lines = (self.folder / "curve.jsonl").read_text(encoding="utf-8").splitlines()
        curve = pd.DataFrame([json.loads(line) for line in lines], columns=list(CURVE_COLUMNS))
        numbers = [column for column in CURVE_COLUMNS if column != "frozen"]
        return curve.astype(dict.fromkeys(numbers, float)).astype({"epoch": int})

    def reconstructions(self) -> dict[str, np.ndarray] | None:
        """Arrays ``[n, C, H, W]`` of ``reconstructions.npz`` by name, or ``None`` where the run has none."""
        import numpy as np

        path = self.folder / "reconstructions.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}


@dataclass(frozen=True)
class Context:
    """The plan around the runs: what was asked for, on which data, and what the selection chose.

    Attributes:
        preset: Name of the preset, as every table shows it.
        protocol: ``holdout`` or ``paper``.
        expected_cells: Every cell of the plan, so that one without a run says so.
        selections: By cell, what was chosen: ``{"status": "selected" | "diverged", "run": name, "configurations": n}``,
            with whatever else a selection says.
        grid_axes: By cell, the settings that its grid varies, by dotted name (``silent.annealing_rate``).
        seeds: Seeds that a selected point is asked to run with.
        datasets: By data set, its prepared ``manifest.json``.
        revision: Source revision that gathers; ``None`` outside a repository.
        overrides: Settings that deviate from the preset, by dotted name.
        factor_analysis: By ``data set/experiment``, what factor analysis reaches with the experiment's latent
            dimension, as the fields of ``Limit``.
    """

    preset: str
    protocol: str
    expected_cells: tuple[str, ...]
    selections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grid_axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revision: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    factor_analysis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def title(self, dataset: str) -> str:
        """A data set as readers see it, e.g. ``Tiny ImageNet at 32x32``; its name where it has no manifest."""
        return str(self.datasets.get(dataset, {}).get("title", dataset))


def load(folder: Path, round: Round) -> Record:  # noqa: A002 - the plan's own word
    """Read a finished run's folder.

    Args:
        folder: Folder of the store with a ``record.json``.
        round: Round of the plan that asks for the run.

    Raises:
        RecordError: The folder is unfinished or lies under another cell's name.
    """
    folder = Path(folder)
    if not (folder / "record.json").exists():
        raise RecordError(f"{folder}: no record.json, so this run is unfinished; train it first")
    identity, settings, result, provenance = (
        _read(folder / f"{name}.json") for name in ("record", "settings", "result", "provenance")
    )
    evaluation = _read(folder / "evaluation.json") if (folder / "evaluation.json").exists() else None
    dataset, experiment, method = settings["data"]["name"], settings["experiment"], settings["method"]
    cell = f"{dataset}/{experiment}/{method}"
    name = str(identity["name"])
    if not name.startswith(f"{cell}/"):
        raise RecordError(f"{folder}: recorded as {name}, but its settings belong to {cell}")
    return Record(
        name, folder, cell, dataset, experiment, method, round, settings, result, evaluation, provenance, identity
    )


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document
